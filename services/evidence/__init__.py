"""Evidence packs: records and their proofs in one bag that verifies without the ledger, years later."""
