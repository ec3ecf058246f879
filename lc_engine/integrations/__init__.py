"""Adapters for other frameworks: one file per framework, imported only where it is used.

`images`, `texts`, `fields` and `indices` hold what several of them share.
"""
