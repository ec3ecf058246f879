"""The rewrites that make a copy fast, one file each."""
