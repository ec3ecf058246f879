"""Figures of a score table."""
