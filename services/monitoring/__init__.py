"""Following a ledger from outside: what a monitor, and whoever audits from tiles, is made of."""
