"""A whole network at K capacities, in a copy that is made fast."""
