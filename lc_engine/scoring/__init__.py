"""A data set in, a score table out."""
