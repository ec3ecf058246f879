"""The operators on a device: `python -m benchmarks.gpu` checks them, times them, writes one CSV."""
