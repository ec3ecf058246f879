"""The folder of a run: its ledger, leases and atomic writes."""
