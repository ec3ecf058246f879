"""Instruction sets as a source: every row tokenized once, with its status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from lc_engine._util.extras import require
from lc_engine.data.batch import NO_LABEL, Batch
from lc_engine.data.readers.delimited import DELIMITERS
from lc_engine.data.readers.hf_datasets import is_saved, load
from lc_engine.data.readers.hub import is_hub_name
from lc_engine.data.readers.jsonl import SUFFIXES
from lc_engine.data.readers.record_files import open_rows
from lc_engine.data.readers.record_source import RecordSource
from lc_engine.data.readers.records import RowError
from lc_engine.language.dataset_info import RenamedRecords, renaming_entry
from lc_engine.language.formats import Format, check_format, detect
from lc_engine.language.pairs import Pairs, joined
from lc_engine.language.tokens import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.data.readers.records import Record, Records
    from lc_engine.language.conversation import Conversation
    from lc_engine.language.tokens import Tokens

# Rows that are searched for one whose fields tell the format.
_SEARCHED_ROWS = 100


class ConversationEncoder(Protocol):
    """What reads and tokenizes conversations; see `Encoder`."""

    def read(self, row: Any, form: Format, folder: Path) -> tuple[Conversation, ...]:
        """Return what a row says; of a preference pair two conversations."""
        ...

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Return the tokens or the status of each conversation."""
        ...


class InstructionSource(RecordSource):
    """Conversations of an instruction set; `Batch.inputs` is a list of `Tokens`, or `Pairs`.

    Args:
        records: the rows.
        encoder: tokenizes them.
        form: format of the rows; None detects it from the fields of the first row that is an
            object.

    Raises:
        ValueError: an unknown format, or one that cannot be detected.
    """

    classes = None
    # Sub-models are made once per batch, so a batch has many rows.
    batch_rows = 512
    shard_rows = 8192

    def __init__(
        self, records: Records, encoder: ConversationEncoder, form: str | None = None
    ) -> None:
        named = check_format(form)
        super().__init__(records)
        self.encoder = encoder
        self.named = named is not None
        self.form: Format = named or _detected(records)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the number of rows, the format and how it is known."""
        return self.records.describe() | {
            "form": self.form,
            "form_is": "named" if self.named else "detected",
        }

    def _batch(self, cut: range, records: list[Record]) -> Batch:
        rows, inputs = self._encoded([record.fields for record in records])
        return Batch(
            ids=np.arange(cut.start, cut.stop, dtype=np.int64),
            inputs=inputs,
            labels=torch.full((len(cut),), NO_LABEL, dtype=torch.int64),
            status=[row.status for row in rows],
            detail=[
                f"{record.where}: {row.detail}" if row.detail else ""
                for record, row in zip(records, rows, strict=True)
            ],
        )

    def _encoded(self, rows: list[Any]) -> tuple[list[Encoded], list[Tokens] | Pairs]:
        """Return what became of each row, and the tokens of those that have any."""
        found = [self._conversations(row) for row in rows]
        said = [one for row in found if not isinstance(row, RowError) for one in row]
        encoded = iter(self.encoder.encode(said))
        each = [
            (Encoded(None, row.status, str(row)),)
            if isinstance(row, RowError)
            else tuple(next(encoded) for _ in row)
            for row in found
        ]
        if self.form != "preference":
            return [one for (one,) in each], [one.tokens for (one,) in each if one.tokens]
        pairs = [(one[0], one[-1]) for one in each]
        both = [
            (chosen.tokens, rejected.tokens)
            for chosen, rejected in pairs
            if chosen.tokens and rejected.tokens
        ]
        inputs = Pairs([chosen for chosen, _ in both], [rejected for _, rejected in both])
        return [
            one[0] if isinstance(row, RowError) else joined(*pair)
            for row, one, pair in zip(found, each, pairs, strict=True)
        ], inputs

    def _conversations(self, row: Any) -> tuple[Conversation, ...] | RowError:
        if isinstance(row, RowError):
            return row
        try:
            return self.encoder.read(row, self.form, self.records.folder)
        except RowError as error:
            return error


def holds_instructions(data: Path | Any) -> bool:
    """Return whether data have the columns of a known format; only their schema is read.

    Args:
        data: a local file or folder, or a `datasets.Dataset`.
    """
    if not isinstance(data, Path):
        names = data.column_names
    elif data.name.lower().endswith((*SUFFIXES, *DELIMITERS, ".json")):
        return True
    elif data.suffix == ".parquet" or (data.is_dir() and any(data.glob("*.parquet"))):
        first = min(data.glob("*.parquet")) if data.is_dir() else data
        names = require("pyarrow.parquet", "table").read_schema(first).names
    elif data.is_dir() and is_saved(data):
        names = load(data).column_names
    else:
        return False
    try:
        detect(dict.fromkeys(names))
    except ValueError:
        return False
    return True


def open_records(data: Any) -> Records:
    """Open the rows of an instruction set; see `open_rows`.

    Where a `dataset_info.json` of LLaMA-Factory is beside a file and gives its columns or tags
    names of their own, those are taken.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: data of an unknown kind.
    """
    entry = None
    if isinstance(data, str | os.PathLike) and not is_hub_name(data):
        entry = renaming_entry(Path(data))
    records = open_rows(data)
    return records if entry is None else RenamedRecords(records, entry)


def _detected(records: Records) -> Format:
    """Return the format of the first row that is an object of a known format."""
    first: ValueError | None = None
    for record in records.read(0, min(len(records), _SEARCHED_ROWS)):
        if isinstance(record.fields, dict):
            try:
                return detect(record.fields)
            except ValueError as error:
                first = first or error
    if first is not None:
        raise first
    raise ValueError(
        f"none of the first {_SEARCHED_ROWS} rows is a JSON object, so the format of the rows "
        "cannot be detected: name it with form="
    )
