"""A data set in, a smaller one of the same form out, with the reason for every row."""
