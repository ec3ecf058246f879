"""Pictures of a score table, for people."""
