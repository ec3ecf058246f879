"""Columns of the data beside labels and inputs: texts and numbers to share, colour or look by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.locations import for_arrow
from lc_engine.data.readers.jsonl_features import JsonLinesSource
from lc_engine.data.readers.parquet import ParquetSource
from lc_engine.data.readers.parquet_images import ParquetImageSource
from lc_engine.data.readers.records import DatasetRecords, ParquetRecords, Records
from lc_engine.data.wrap.mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lc_engine.data.batch import Source

# What a row without a value is shown as.
MISSING = "(none)"


class NoColumnError(ValueError):
    """Data lack a column."""


def carried(stored: Source | Records, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return columns of the data as texts (N,); a row without a value has `MISSING`.

    Raises:
        ValueError: data without columns, or a column that no row has or that is not of plain
            values.
    """
    if not names:
        return {}
    if isinstance(stored, Mixture):
        return _of_sources(stored, names)
    if isinstance(stored, JsonLinesSource):
        stored = stored.records
    if isinstance(stored, Records):
        stored = stored.stored
    if isinstance(stored, ParquetSource | ParquetImageSource):
        return _of_parquet(stored.files.paths, names)
    if isinstance(stored, ParquetRecords):
        return _of_parquet(stored.paths, names)
    raw = stored.dataset if isinstance(stored, DatasetRecords) else getattr(stored, "raw", None)
    if raw is not None:
        _check_known(names, raw.column_names)
        chosen = raw.select_columns(list(names)).with_format("arrow")[:]
        return {name: _texts(name, chosen.column(name).to_pylist()) for name in names}
    if isinstance(stored, Records):
        found: dict[str, list[Any]] = {name: [] for name in names}
        seen: set[str] = set()
        for record in stored.read(0, len(stored)):
            fields = record.fields if isinstance(record.fields, dict) else {}
            seen.update(fields)
            for name in names:
                found[name].append(fields.get(name))
        _check_known(names, sorted(seen))
        return {name: _texts(name, values) for name, values in found.items()}
    raise NoColumnError(
        f"there is no column {names[0]!r}: the scores have none, and a {type(stored).__name__} has "
        "no columns besides the label; JSON, Parquet and data sets of datasets have"
    )


def _of_sources(stored: Mixture, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return columns that a source at least has; `MISSING` for the rows of the others."""
    found: dict[str, NDArray[Any]] = {}
    for name in names:
        parts, errors = [], []
        for part in stored.sources.values():
            try:
                parts.append(carried(part, [name])[name])
            except NoColumnError as error:
                errors.append(error)
                parts.append(np.full(len(part), MISSING))
        if len(errors) == len(parts):
            raise errors[0]
        found[name] = np.concatenate(parts)
    return found


def _of_parquet(paths: Sequence[Any], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    parquet = require("pyarrow.parquet", "table")
    found: dict[str, list[Any]] = {name: [] for name in names}
    for path in paths:
        with for_arrow(path) as where, parquet.ParquetFile(where) as file:
            _check_known(names, file.schema_arrow.names)
            table = file.read(columns=list(names))
        for name in names:
            found[name] += table.column(name).to_pylist()
    return {name: _texts(name, values) for name, values in found.items()}


def _check_known(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise NoColumnError(f"carry: the data have no column {name!r}; they have {list(known)}")


def _texts(name: str, values: list[Any]) -> NDArray[Any]:
    for row, value in enumerate(values):
        if not isinstance(value, str | int | float | None):
            raise ValueError(
                f"carry: column {name!r} holds a {type(value).__name__} in row {row}: only texts "
                "and numbers can be carried"
            )
    return np.array([MISSING if value is None else str(value) for value in values], np.str_)
