"""Data in and scores out: readers, the score table and the ledger of a resumable run."""
