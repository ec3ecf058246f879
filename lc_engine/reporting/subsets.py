"""Selections as ids, from arrays or from the files that `lc-engine select` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.readers.id_files import read_ids

if TYPE_CHECKING:
    import pyarrow as pa

# More selections than this are not compared: their 2^S overlaps say nothing to a person.
MOST = 4


def read_subsets(subset: Any, id_type: pa.DataType) -> dict[str, pa.Array]:
    """Return ids by the name of their selection.

    Args:
        subset: None, a file (.npy, .txt or .parquet), an array of ids, a list of files, or a
            mapping of names to files or arrays.
        id_type: type of the score table's ids.

    Raises:
        ValueError: ids of another type, or too many selections.
        FileNotFoundError: a file that is not there.
    """
    found = {name: _ids(name, given, id_type) for name, given in _named(subset).items()}
    if len(found) > MOST:
        raise ValueError(f"subset: at most {MOST} selections are compared, got {len(found)}")
    return found


def _named(subset: Any) -> dict[str, Any]:
    if subset is None:
        return {}
    if isinstance(subset, Mapping):
        return {str(name): given for name, given in subset.items()}
    if isinstance(subset, str | os.PathLike):
        return {Path(subset).stem: subset}
    if isinstance(subset, list | tuple) and all(isinstance(s, os.PathLike) for s in subset):
        names = [path.stem for path in map(Path, subset)]
        # Files of the same name are told apart by their paths.
        return {
            name if names.count(name) == 1 else str(path): path
            for name, path in zip(names, subset, strict=True)
        }
    return {"selection": subset}


def _ids(name: str, given: Any, id_type: pa.DataType) -> pa.Array:
    pa = require("pyarrow", "table")
    if isinstance(given, str | os.PathLike):
        given = _read(Path(given))
    values = np.asarray(given).tolist()
    try:
        if str(id_type) == "int64":
            return pa.array([int(value) for value in values], id_type)
        return pa.array([str(value) for value in values], id_type)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"subset {name}: its ids are not of the score table's type {id_type}: {error}"
        ) from None


def _read(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"subset: {path} does not exist")
    if path.suffix in (".npy", ".txt"):
        return read_ids(path)
    if path.suffix == ".parquet":
        table = require("pyarrow.parquet", "table").read_table(path, columns=["id"])
        return table.column("id").to_pylist()
    raise ValueError(f"subset: {path} must end with .npy, .txt or .parquet")
