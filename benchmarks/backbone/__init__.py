"""Whole backbones on picture files, against the way of the released code."""
