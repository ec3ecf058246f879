"""Open rows of texts: files, folders, data sets of `datasets`, lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine.data.locations import folders_of
from lc_engine.data.readers.delimited import DELIMITERS, DelimitedRecords
from lc_engine.data.readers.hf_datasets import is_saved, load
from lc_engine.data.readers.hub import is_hub_name, load_hub
from lc_engine.data.readers.jsonl import SUFFIXES, JsonLines
from lc_engine.data.readers.records import DatasetRecords, ListRecords, ParquetRecords

if TYPE_CHECKING:
    from lc_engine.data.readers.records import Records


def open_rows(data: Any) -> Records:
    """Open rows of texts.

    Args:
        data: a `.jsonl` (also `.gz`, `.zst`), `.json` (one list), `.csv`, `.tsv` (whose lists are
            JSON text) or `.parquet` file, a folder of Parquet files, a folder written by
            `datasets.Dataset.save_to_disk`, a `datasets.Dataset`, the name of one on the Hub (see
            `load_hub`), or a list of rows (the fields of each by name).

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: data of an unknown kind.
    """
    if is_hub_name(data):
        return DatasetRecords(load_hub(data))
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        records = _open_path(path)
        records.folders = folders_of(data)
        records.folder = path if path.is_dir() else path.parent
        return records
    if isinstance(data, list):
        return ListRecords(data)
    if type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "with_format"):
        if isinstance(data, dict):
            raise ValueError(
                f"data holds the splits {', '.join(data)}; pass one of them: data[{min(data)!r}]"
            )
        return DatasetRecords(data)
    raise ValueError(
        f"data: a {type(data).__name__} is not an instruction set; pass a .jsonl, .json, "
        ".csv or .parquet file, a datasets.Dataset or a list of rows"
    )


def _open_path(path: Path) -> Records:
    if not path.exists():
        raise FileNotFoundError(f"data: {path} does not exist")
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return JsonLines(path)
    if name.endswith(".json"):
        return ListRecords.from_json(path)
    if name.endswith(tuple(DELIMITERS)):
        return DelimitedRecords(path)
    if name.endswith(".parquet") or (path.is_dir() and any(path.glob("*.parquet"))):
        return ParquetRecords(path)
    if path.is_dir() and is_saved(path):
        return DatasetRecords(load(path))
    raise ValueError(
        f"data: {path} is not a known kind of instruction set; known are "
        f"{', '.join((*SUFFIXES, *DELIMITERS))}, .json (one list), .parquet, and a folder saved by "
        "datasets"
    )
