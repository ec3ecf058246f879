"""LLaMA-Factory's `dataset_info.json`: the columns and tags of a file by names of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine._util.json_file import read_json_object
from lc_engine.data.readers.records import Record, Records, RowError
from lc_engine.language.formats.fields import turn_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFO: Final = "dataset_info.json"

# What is renamed, and to which field of Alpaca or ShareGPT.
_PAIR: Final = ("chosen", "rejected")
_BOTH: Final = ("system", "tools", "images", "videos", "audios", *_PAIR)
_ALPACA: Final = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
}
_SHAREGPT: Final = {"messages": "conversations"}
_ROLES: Final = {
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
# Fields whose turns have tags.
_TURNED: Final = ("conversations", *_PAIR)
# What an entry says of the rows; the rest says where they are and how many are taken.
_MEANING: Final = ("formatting", "ranking", "columns", "tags")


def renaming_entry(path: Path) -> dict[str, Any] | None:
    """Return the entry of a file in the `dataset_info.json` beside it, if it renames anything.

    Raises:
        ValueError: several entries of the file, which disagree about its fields; or no JSON.
    """
    found = _entries(path)
    entries = list(found.values())
    if any(entry != entries[0] for entry in entries):
        raise ValueError(
            f"{path.parent / INFO} has several entries of {path.name}, which name other fields: "
            f"{', '.join(found)}; keep one"
        )
    if not entries or not ("columns" in entries[0] or "tags" in entries[0]):
        return None
    return entries[0]


def copy_entries(path: Path, out: Path) -> None:
    """Write a `dataset_info.json` of the entries of one file, for a file of its name elsewhere.

    Args:
        path: the file, with the whole `dataset_info.json` beside it.
        out: the folder of the other file.
    """
    found = {name: {"file_name": path.name, **entry} for name, entry in _entries(path).items()}
    atomic_write_text(out / INFO, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """Return what the entries of a file say of its rows, by their names."""
    info = path.parent / INFO
    if not info.is_file() or path.name == INFO:
        return {}
    return {
        name: {key: entry[key] for key in _MEANING if key in entry}
        for name, entry in read_json_object(info).items()
        if isinstance(entry, dict) and entry.get("file_name") == path.name
    }


class RenamedRecords(Records):
    """Records with the fields of Alpaca or ShareGPT in place of those that an entry names.

    Where an entry lists columns, only those are taken, as LLaMA-Factory does.

    Args:
        records: the rows.
        entry: formatting, ranking, columns and tags of `dataset_info.json`.
    """

    def __init__(self, records: Records, entry: Mapping[str, Any]) -> None:
        self.records, self.entry = records, entry
        self.states, self.folders = records.states, records.folders
        self.folder = records.folder
        self._is_alpaca = entry.get("formatting", "alpaca") == "alpaca"

    @property
    def stored(self) -> Records:
        """The rows with the names of fields that they have in the file."""
        return self.records

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        for record in self.records.read(start, stop):
            yield Record(self._renamed(record.fields), record.where)

    def digest(self) -> str:
        """Hash the rows and the entry."""
        text = json.dumps([self.records.digest(), self.entry], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows, and the entry."""
        return self.records.describe() | {INFO: self.entry}

    def _renamed(self, row: Any) -> Any:
        if not isinstance(row, Mapping):
            return row
        fields = self._columns(row) if "columns" in self.entry else dict(row)
        if self._is_alpaca:
            return fields
        try:
            return fields | {name: self._turns(fields, name) for name in fields if name in _TURNED}
        except RowError as error:
            return error

    def _columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        names = {name: name for name in _BOTH if self.entry.get("ranking") or name not in _PAIR}
        names |= _ALPACA if self._is_alpaca else _SHAREGPT
        columns = self.entry["columns"]
        return {
            name: row[columns[key]]
            for key, name in names.items()
            if columns.get(key) is not None and row.get(columns[key]) is not None
        }

    def _turns(self, fields: Mapping[str, Any], name: str) -> Any:
        if name != "conversations":
            return self._turn(fields[name])
        return [self._turn(turn) for turn in turn_list(fields[name], name)]

    def _turn(self, turn: Any) -> Any:
        if not isinstance(turn, Mapping):
            return turn
        tags = {"role_tag": "from", "content_tag": "value"} | (self.entry.get("tags") or {})
        renamed = {tags["role_tag"]: "from", tags["content_tag"]: "value"}
        roles = {tags[tag]: role for tag, role in _ROLES.items() if tag in tags}
        made = {renamed.get(name, name): value for name, value in turn.items()}
        said = made.get("from")
        return made | {"from": roles.get(said, said)} if isinstance(said, str) else made
