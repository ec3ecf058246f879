"""Whole backbones on image files, compared with the released code."""
