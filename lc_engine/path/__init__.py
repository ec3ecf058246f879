"""Learning paths: which capacities, with which weights."""
