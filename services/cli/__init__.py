"""The command line, `daybook`: one module for each command, loaded only when that command runs.

A command's module has `run`, a function that typer turns into its options and arguments, or `app`, a
`typer.Typer` of its own where it has commands below it. So `daybook verify` loads nothing of a server.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import keyword
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Timer
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    # Loaded in `main`, which knows what to do when Ctrl-C comes meanwhile.
    import typer

P = ParamSpec("P")
T = TypeVar("T")

COMMANDS: Final[Mapping[str, str]] = {
    "init": "Make a new ledger: keys, store and governing register.",
    "serve": "Serve a ledger over gRPC and HTTP from its directory.",
    "keygen": "Make an Ed25519 key pair.",
    "govern": "Open registers, authorise and revoke keys: governance.",
    "policy": "Print the witness policy file that verifiers hold, or say what one means.",
    "profile": "Show and check policy profiles: the limits by which records are looked at.",
    "register": "Sign records, register them, verify the answers, keep the receipts.",
    "receipt": "Fetch one receipt anew, with all that the ledger can prove by now.",
    "verify": "Verify a receipt or an evidence pack, offline.",
    "evidence": "Pack records with all that proves them, for a tribunal.",
    "query": "List all entries that answer a question, with proof that there are no others.",
    "findings": "List what a ledger's own detections noticed: its operator's word.",
    "witness": "Run a witness: an independent service that cosigns the checkpoints of ledgers.",
    "audit": "Audit a ledger: what was added, altered or removed since your last visit.",
    "monitor": "Follow a ledger from outside: read everything, compare, keep evidence.",
    "drill": "Try whether lies about a ledger would be caught, on copies of it.",
    "sealing": "Say whether checkpoints are sealed by witnesses, and by whom.",
    "fsck": "Derive everything in a ledger's directory again, and compare.",
    "export": "Write the event log of a ledger into one file.",
    "import": "Catch up after a restore from an export, or make a copy to read.",
    "run": "Run one service of the distributed mode.",
    "topics": "Create or check the Kafka topics of a distributed ledger.",
    "migrate": "Create or update the PostgreSQL schema of a distributed ledger.",
    "rebuild": "Derive a distributed ledger's store again from its event log.",
    "config": "Show the settings of the distributed services, without secrets.",
}
"""Every command with its one line of help, in the order in which a reader meets them."""

SOFTWARE_FAULT: Final = 70
"""Exit status of a fault in Daybook itself (EX_SOFTWARE): never to be taken for an integrity failure."""

_INTERRUPTED: Final = 130

_PATIENCE: Final = 3.0
"""Seconds in which a command ends in order after Ctrl-C."""

_GOES_ON: Final = frozenset({"audit", "monitor"})
"""Commands that keep what they have read, so that the same one again goes on from there."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `daybook` with these arguments, by default the process's own. Ends in SystemExit.

    Status: 0 fine; 1 an integrity failure was found; 2 bad input or usage; 3 could not reach or read; 130 where
    Ctrl-C stopped it.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What gRPC logs by itself, each command says better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with _stopped_at_once(given, is_process=arguments is None) as pressed:
        try:
            if given and given[0] in available():
                _run(command(given[0]), given[1:], f"daybook {given[0]}")
            else:
                _run(root(), given, "daybook")
        except (KeyboardInterrupt, _StoppedError):
            pressed.set()
        except Exception:
            # What Ctrl-C breaks off may come up as something else, as while a class is being made.
            if not pressed.is_set():
                traceback.print_exc()
                sys.exit(SOFTWARE_FAULT)
        _tell_stopped(given)
        if arguments is None:
            # Of itself the process would wait for threads, as for one that looks up a name.
            os._exit(_INTERRUPTED)
        sys.exit(_INTERRUPTED)


class _StoppedError(BaseException):
    """Ctrl-C, on its way past typer, which would end the command without a word."""


@contextmanager
def _stopped_at_once(given: Sequence[str], *, is_process: bool) -> Iterator[Event]:
    """Have Ctrl-C stop what runs at once, also where no event loop would look for it for a long time.

    asyncio waits with it until its task does; it leaves alone a handler that is not Python's own. Where it is
    the process that ends afterwards, it ends as it was about to. Yields what is set once Ctrl-C was pressed.
    """
    pressed = Event()
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # A shell has made it deaf, as one that runs in the background.
        yield pressed
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        if is_process and not pressed.is_set():
            # What comes up in a finalizer, or is caught on the way, is lost: then the process ends without it.
            last = Timer(_PATIENCE, _end_by_force, [given])
            last.daemon = True
            last.start()
        pressed.set()
        # Of what is broken off on the way, as the tasks of an event loop, nobody needs a traceback, nor a word
        # of a coroutine that nobody awaits any more.
        logging.disable()
        warnings.simplefilter("ignore")
        sys.unraisablehook = _say_nothing
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if is_process else before)


def _say_nothing(_what: object) -> None:
    """Nobody is left to read it."""


def _end_by_force(given: Sequence[str]) -> None:
    """End as after SIGKILL, which no command minds."""
    _say_stopped(given)
    os._exit(_INTERRUPTED)


def _tell_stopped(given: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say_stopped(given)


def _say_stopped(given: Sequence[str]) -> None:
    text = "Stopped; run the same command again to go on" if _goes_on(given) else "Stopped"
    if "--json" in given:
        _print_error(text, "INTERRUPTED")
    else:
        print(text, file=sys.stderr)
    with suppress(OSError):
        sys.stdout.flush()


def _goes_on(given: Sequence[str]) -> bool:
    return bool(given) and given[0] in _GOES_ON


def _print_error(text: str, reason: str) -> None:
    print(json.dumps({"error": {"message": text, "reason": reason}}, ensure_ascii=False, indent=2))


def _run(app: typer.Typer, given: Sequence[str], name: str) -> NoReturn:
    import typer

    # What typer raises for every mistake in the arguments; it exports only this one's subclass.
    usage: Any = typer.BadParameter.__mro__[1]
    made = typer.main.get_command(app)
    # typer gives no other place where Ctrl-C could be told from a command that ends with the same status.
    made.make_context = _stoppable(made.make_context)  # type: ignore[method-assign]
    made.invoke = _stoppable(made.invoke)  # type: ignore[method-assign]
    if "--json" not in given:
        made(args=given, prog_name=name)
        sys.exit(0)
    try:
        sys.exit(made(args=given, prog_name=name, standalone_mode=False))
    except usage as error:
        # Said in JSON too: what reads it must never find an empty stdout.
        _print_error(error.format_message() or f"Something is missing: see {name} --help", "BAD_USAGE")
        sys.exit(2)


def _stoppable(call: Callable[P, T]) -> Callable[P, T]:
    def calling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise _StoppedError from error

    return calling


def available() -> tuple[str, ...]:
    """Return the names of the commands whose modules are there."""
    return tuple(name for name in COMMANDS if importlib.util.find_spec(_module(name)) is not None)


def _module(name: str) -> str:
    """Return the module of a command; that of a word which Python keeps for itself ends with an underscore."""
    return f"{__name__}.{name}_" if keyword.iskeyword(name) else f"{__name__}.{name}"


def command(name: str) -> typer.Typer:
    """Load one command and return its typer application."""
    module = importlib.import_module(_module(name))
    if hasattr(module, "app"):
        app: typer.Typer = module.app
        return app
    app = plain_typer()
    app.command(name)(module.run)
    return app


def plain_typer(help_text: str | None = None) -> typer.Typer:
    """Return a typer application in the style of all commands."""
    import typer

    return typer.Typer(
        help=help_text,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


def root() -> typer.Typer:
    """Return what `daybook` alone shows: the list of commands, without loading any."""
    app = plain_typer(
        "A tamper-evident ledger for the decisions of ministers.\n\n"
        "Each command explains itself and shows an example: daybook verify --help"
    )

    @app.callback()
    def daybook() -> None:
        """Only here so that typer shows the list."""

    for name in available():
        app.command(name, help=COMMANDS[name])(_never_run)
    return app


def _never_run() -> None:
    raise AssertionError("main runs the command itself")
