"""What every room may use: digests, optional dependencies, packages of data, ordered threads."""
