"""LLaMA-Factory: a subset as a file of its data folder, with its entry in `dataset_info.json`.

add_dataset("data/alpaca_en.json", keep, name="alpaca_en_lc10", like="alpaca_en")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine.integrations.files import write_subset
from lc_engine.language.dataset_info import INFO

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# The keys of an entry that say what its rows look like. Every other key says where the rows are or
# which of them to take (num_samples draws rows twice, a split takes a part), or is not known to
# hold for a subset.
_SCHEMA = ("formatting", "ranking", "columns", "tags")
# The endings that LLaMA-Factory reads, of those that `write_subset` writes.
_READ = (".json", ".jsonl", ".parquet")


def add_dataset(
    data: str | Path, keep: ArrayLike, *, name: str, like: str, folder: str | Path | None = None
) -> Path:
    """Write a subset beside LLaMA-Factory's data and register it under a name.

    Args:
        data: the JSON, JSONL or Parquet file that was scored; the subset has its schema.
        keep: row indices, as `lc_engine.select` returns them.
        name: of the new data set, for `dataset:` in the training YAML.
        like: the entry of the whole data set, whose schema is copied: formatting, ranking, columns
            and tags. Its `split`, `subset`, `folder` and `num_samples` do not hold for
            the new file, which LLaMA-Factory reads whole.
        folder: LLaMA-Factory's `dataset_dir`, with `dataset_info.json`; None is that of `data`.

    Returns:
        The file of the subset.

    Raises:
        FileNotFoundError: no `dataset_info.json` there, or no data.
        ValueError: an invalid `dataset_info.json`, no entry `like`, a name that LLaMA-Factory does
            not find or that is another data set's, a kind of file that it does not read, no row to
            keep, or row indices out of range.
    """
    data = Path(data)
    folder = data.parent if folder is None else Path(folder)
    info = folder / INFO
    if not info.exists():
        raise FileNotFoundError(f"folder: there is no {INFO} in {folder}")
    entries = _entries(info)
    if not isinstance(entries.get(like), dict):
        raise ValueError(f"like: {info} has no entry {like!r}; it has {', '.join(entries)}")
    kind = ".parquet" if data.is_dir() else data.suffix
    if kind not in _READ:
        raise ValueError(
            f"data: LLaMA-Factory reads {', '.join(_READ)}, not {kind or 'a file of this name'}: "
            f"decompress or convert {data.name} first"
        )
    _check_name(name, entries, name + kind, like, info)
    if not np.size(keep):
        raise ValueError("keep holds no row, and LLaMA-Factory does not train on an empty file")
    out = folder / f"{name}{kind}"
    write_subset(data, keep, out)
    schema = {key: value for key, value in entries[like].items() if key in _SCHEMA}
    entries[name] = {"file_name": out.name, **schema}
    atomic_write_text(info, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    return out


def _entries(info: Path) -> dict[str, Any]:
    try:
        entries = json.loads(info.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"folder: {info} is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"folder: {info} must hold an object of entries by name")
    return entries


def _check_name(name: str, entries: dict[str, Any], file: str, like: str, info: Path) -> None:
    """Raise unless LLaMA-Factory finds a name, and its entry and file are free or a subset's."""
    if not name or name != name.strip() or set(name) & set(",/\\"):
        raise ValueError(
            f"name: {name!r} must not hold a comma, which separates names in the training YAML, a "
            "slash, or blanks at its ends"
        )
    if name == like:
        raise ValueError(f"name: {name!r} is the whole data set: use another name")
    if name in entries and _file_of(entries[name]) != file:
        raise ValueError(f"name: {info} has an entry {name!r} of another file: use another name")
    owner = next((n for n, e in entries.items() if n != name and _file_of(e) == file), None)
    if owner is not None:
        raise ValueError(f"name: {file} is the file of the entry {owner!r}: use another name")


def _file_of(entry: Any) -> Any:
    return entry.get("file_name") if isinstance(entry, dict) else None
