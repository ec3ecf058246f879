"""Selection from a score table that does not fit in memory."""

from lc_engine.selection.streamed.select import select_streamed

__all__ = ["select_streamed"]
