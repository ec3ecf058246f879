"""LLaMA-Factory: a subset as a file of its data folder, with its entry in `dataset_info.json`.

add_dataset("data/alpaca_en.json", keep, name="alpaca_en_lc10", like="alpaca_en")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine.integrations.files import write_subset

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

INFO = "dataset_info.json"
# The keys of an entry that say where its rows are; the subset has a file of its own.
_LOCATIONS = (
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
    "script_url",
    "cloud_file_name",
    "file_name",
)


def add_dataset(
    data: str | Path, keep: ArrayLike, *, name: str, like: str, folder: str | Path | None = None
) -> Path:
    """Write a subset beside LLaMA-Factory's data and register it under a name.

    Args:
        data: the JSON, JSONL or Parquet file that was scored; the subset has its schema.
        keep: row indices, as `lc_engine.select` returns them.
        name: of the new data set, for `dataset:` in the training YAML.
        like: the entry of the whole data set, whose formatting, columns and tags are copied.
        folder: LLaMA-Factory's `dataset_dir`, with `dataset_info.json`; None is that of `data`.

    Returns:
        The file of the subset.

    Raises:
        FileNotFoundError: no `dataset_info.json` there, or no data.
        ValueError: no entry `like`, an entry `name` of another file, or row indices out of
            range.
    """
    data = Path(data)
    folder = data.parent if folder is None else Path(folder)
    info = folder / INFO
    if not info.exists():
        raise FileNotFoundError(f"folder: there is no {INFO} in {folder}")
    entries: dict[str, Any] = json.loads(info.read_text(encoding="utf-8"))
    if like not in entries:
        raise ValueError(f"like: {info} has no entry {like!r}; it has {', '.join(entries)}")
    suffix = ".parquet" if data.is_dir() else "".join(data.suffixes[-2:])
    out = folder / f"{name}{suffix}"
    if entries.get(name, {}).get("file_name", out.name) != out.name:
        raise ValueError(f"name: {info} has an entry {name!r} of another file: use another name")
    write_subset(data, keep, out)
    kept = {key: value for key, value in entries[like].items() if key not in _LOCATIONS}
    entries[name] = {"file_name": out.name, **kept}
    atomic_write_text(info, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    return out
