"""Selection strategies by name."""
