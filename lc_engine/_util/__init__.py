"""Helpers of all rooms: digests, optional dependencies, data in wheels, an ordered thread pool."""
