"""From features to the log-probability of the label."""
