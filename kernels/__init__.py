"""Triton kernels, one file per operator.

Sizes are N rows (T tokens), D features, H hidden units, E outputs, C classes (V vocabulary) and K
sub-models. BLOCK_K is the block of a product's reduction, as in every Triton product, and BLOCK_S
the block of sub-models; the other blocks have the letter of their size. A pointer that a
configuration does not need is None, from which the HAS_ constants follow.
"""
