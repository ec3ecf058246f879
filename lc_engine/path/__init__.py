"""Which capacities a model is seen at, and with which weights."""
