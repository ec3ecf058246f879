"""Scorer: a model, a path, a masking and a head."""
