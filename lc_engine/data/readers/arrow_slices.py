"""Rows of a data set of `datasets` as Arrow tables, checked where they come from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine._util.extras import require
from lc_engine.data.faults import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

# Rows taken from the Arrow files at a time.
_CHUNK_ROWS = 1024


def arrow_slices(dataset: Any, rows: range) -> Iterator[pa.Table]:
    """Yield some rows of a data set in the format "arrow", a chunk at a time.

    Arrow trusts the offsets of lists and texts in its files: without the check here, a damaged file
    ends the process.

    Raises:
        ConfigurationError: the file is damaged; naming it.
    """
    for start in range(rows.start, rows.stop, _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, rows.stop)
        table = dataset[start:stop]
        try:
            table.validate(full=bool(dataset.cache_files))
        except require("pyarrow", "hf").ArrowInvalid as error:
            folder = Path(dataset.cache_files[0]["filename"]).parent if dataset.cache_files else ""
            raise ConfigurationError(
                f"rows {start} to {stop - 1} of the data set {folder} are damaged: "
                f"{' '.join(str(error).split())}; save it again"
            ) from None
        yield table
