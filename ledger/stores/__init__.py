"""The stores: memory and SQLite, each native to what it stores in."""
