"""What departments import: sign records, register them, verify every answer, keep receipts.

Imports `ledger` and the generated protobuf code only. Nothing that a server says is believed: keys, quorum
and ledger origin come from the department's own witness policy file.
"""
