"""lc_engine inside other people's tools: a file each, imported only where it is used."""
