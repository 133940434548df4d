"""What runs: servers, clients and the command line. They translate and schedule; the rules are in `ledger`."""
