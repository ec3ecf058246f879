"""The folder of a run: its ledger and leases."""
