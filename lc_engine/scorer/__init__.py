"""Scorer, and what it prepares."""
