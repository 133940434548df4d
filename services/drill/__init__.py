"""Drills: what an operator with every key of his ledger might try, and what an auditor's tools make of it."""
