"""The footer of a Parquet file: its columns, and the rows of each row group."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lc_engine._util.extras import require
from lc_engine.data.locations import for_arrow
from lc_engine.data.readers.parsing import parsing

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


class Footer(NamedTuple):
    """What a reader needs of the footer.

    Attributes:
        schema: the columns.
        groups: rows of each row group.
    """

    schema: pa.Schema
    groups: list[int]


def read_footer(path: Path) -> Footer:
    """Read the footer of a file.

    Raises:
        ValueError: not Parquet.
        OSError: the system did not let the file be read.
    """
    parquet = require("pyarrow.parquet", "table")
    with parsing(path, "Parquet"), for_arrow(path) as file:
        footer = parquet.read_metadata(file)
        groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        if min(groups, default=0) < 0 or sum(groups) != footer.num_rows:
            raise ValueError(f"its row groups have {groups} rows, the file {footer.num_rows}")
        schema = footer.schema.to_arrow_schema()
        schema.names  # not UTF-8: raises here, where the file is named  # noqa: B018
        return Footer(schema, groups)


def check_rows(left: int) -> None:
    """Raise unless a row group had as many rows as its footer says; `left` are missing."""
    if left:
        raise ValueError(f"{abs(left)} rows {'fewer' if left > 0 else 'more'} than its footer says")
