"""``python -m services.cli`` is `daybook`."""

from services.cli import main

if __name__ == "__main__":
    main()
