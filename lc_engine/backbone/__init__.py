"""A whole network at K capacities, in an optimized copy."""
