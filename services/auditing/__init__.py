"""The auditor's work: what a verified ledger shows of lateness, completeness and conduct."""
