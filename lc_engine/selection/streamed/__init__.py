"""Selection from a score table that does not fit in memory, in two passes over its files.

The first pass counts rows by group and by score. This determines the budget of each group and the
score at which its easy rows end, up to the rows of one histogram bin. The second pass sorts those
few and samples: in each pool the rows with the smallest random keys (a hash of id and seed) are
kept. The largest key kept is known beforehand to within a narrow band, so nearly every row is
decided as it is read.

Memory: 16 bytes per row kept, and under a gigabyte besides.
"""

from lc_engine.selection.streamed.select import STREAMED, select_streamed

__all__ = ["STREAMED", "select_streamed"]
