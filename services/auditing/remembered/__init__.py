"""What is remembered of earlier entries, so that a new one is judged for what it costs alone.

Each module keeps the tables of one idea in the `FactStore`, takes what is new, and settles what can only be
said of a register as it stands.
"""
