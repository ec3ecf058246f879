"""Reports of a score table, for people: the page and the figure."""
