"""The distributed mode: the same ledger as services over Kafka and PostgreSQL (docs/distributed.md)."""
