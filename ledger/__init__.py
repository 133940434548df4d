"""The Daybook ledger: what is said, how it is committed to, and how either is checked.

Nothing here knows of gRPC, Kafka or asyncio. Above `store.py` nothing touches files, sockets, clocks,
randomness or the environment.
"""
