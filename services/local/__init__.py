"""Brokers and PostgreSQL on this machine, for trials and tests: one node each, on the loopback only."""
