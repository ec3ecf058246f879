"""Some rows of a data set, written in its own form; one file per kind."""
