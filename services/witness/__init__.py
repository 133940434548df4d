"""A witness (C2SP tlog-witness): the service that an independent institution runs beside any ledger.

It shares only the pure modules of `ledger/` with the ledger that it watches: no store, no registers.
"""
