"""Instruction sets as a source: every row tokenised once, with its status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.data.batch import NO_LABEL, Batch, row_ranges
from lc_engine.data.readers.hf_datasets import is_saved, load
from lc_engine.data.readers.jsonl import SUFFIXES, JsonLines
from lc_engine.data.readers.records import (
    DatasetRecords,
    ListRecords,
    ParquetRecords,
    Records,
)
from lc_engine.language.formats import (
    Format,
    Message,
    RowError,
    check_format,
    conversation,
    detect,
)
from lc_engine.language.template import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.language.template import Encoder

# Rows that are looked at for one whose fields tell the format.
_LOOKED_AT = 100


class InstructionSource:
    """Conversations of an instruction set; `Batch.inputs` is a list of `Tokens`.

    Args:
        records: the rows.
        encoder: what tokenises them.
        form: of the rows; None tells it from the fields of the first row that is an object.

    Raises:
        ValueError: the form cannot be told, or is no form.
    """

    classes = None
    # Sub-models are made once per batch, so a batch has many rows.
    batch_rows = 512
    shard_rows = 8192

    def __init__(self, records: Records, encoder: Encoder, form: Format | None = None) -> None:
        check_format(form)
        self.records = records
        self.encoder = encoder
        self.named = form is not None
        self.form: Format = form or _detected(records)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def digest(self) -> str:
        """Return a fingerprint of the rows."""
        return self.records.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the number of rows, and the form and how it is known."""
        return self.records.describe() | {
            "form": self.form,
            "form_is": "named" if self.named else "detected",
        }

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`."""
        cuts = row_ranges(len(self), batch_size, start, stop)
        return self._batches(cuts)

    def _batches(self, cuts: list[range]) -> Iterator[Batch]:
        if not cuts:
            return
        records = self.records.read(cuts[0].start, cuts[-1].stop)
        for cut in cuts:
            read = [next(records) for _ in cut]
            rows = self._encoded([record.fields for record in read])
            yield Batch(
                ids=np.arange(cut.start, cut.stop, dtype=np.int64),
                inputs=[row.tokens for row in rows if row.tokens is not None],
                labels=torch.full((len(cut),), NO_LABEL, dtype=torch.int64),
                status=[row.status for row in rows],
                detail=[
                    f"{record.place}: {row.detail}" if row.detail else ""
                    for record, row in zip(read, rows, strict=True)
                ],
            )

    def _encoded(self, rows: list[Any]) -> list[Encoded]:
        turns = [self._turns(row) for row in rows]
        encoded = iter(self.encoder.encode([turn for turn in turns if isinstance(turn, list)]))
        return [
            next(encoded) if isinstance(turn, list) else Encoded(None, turn.status, str(turn))
            for turn in turns
        ]

    def _turns(self, row: Any) -> list[Message] | RowError:
        if isinstance(row, RowError):
            return row
        try:
            return conversation(row, self.form)
        except RowError as error:
            return error


def open_instructions(data: Any, encoder: Encoder, form: str | None = None) -> InstructionSource:
    """Open an instruction set.

    Args:
        data: a `.jsonl` (also `.gz`, `.zst`), `.json` (one list) or `.parquet` file, a folder of
            Parquet files, a folder written by `datasets.Dataset.save_to_disk`, a
            `datasets.Dataset`, or a list of rows (the fields of each by name).
        encoder: what tokenises the conversations.
        form: "alpaca", "sharegpt", "messages" or "prompt_completion"; None tells it from the
            fields.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: data of an unknown kind or form.
    """
    check_format(form)
    return InstructionSource(_open(data), encoder, form)  # type: ignore[arg-type]


def _open(data: Any) -> Records:
    if isinstance(data, str | os.PathLike):
        return _open_path(Path(data))
    if isinstance(data, list):
        return ListRecords(data)
    if type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "with_format"):
        if isinstance(data, dict):
            raise ValueError(
                f"data holds the splits {', '.join(data)}; give one of them: data[{min(data)!r}]"
            )
        return DatasetRecords(data)
    raise ValueError(
        f"data: a {type(data).__name__} is no instruction set; give a .jsonl, .json or .parquet "
        "file, a datasets.Dataset or a list of rows"
    )


def _open_path(path: Path) -> Records:
    if not path.exists():
        raise FileNotFoundError(f"data: {path} does not exist")
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return JsonLines(path)
    if name.endswith(".json"):
        return ListRecords.from_json(path)
    if name.endswith(".parquet") or (path.is_dir() and any(path.glob("*.parquet"))):
        return ParquetRecords(path)
    if path.is_dir() and is_saved(path):
        return DatasetRecords(load(path))
    raise ValueError(
        f"data: {path} is no instruction set that is known; known are "
        f"{', '.join(SUFFIXES)}, .json (one list), .parquet, and a folder saved by datasets"
    )


def _detected(records: Records) -> Format:
    """Tell the form of the rows from the first one that is an object."""
    complaint: ValueError | None = None
    for record in records.read(0, min(len(records), _LOOKED_AT)):
        if isinstance(record.fields, dict):
            try:
                return detect(record.fields)
            except ValueError as error:
                complaint = complaint or error
    if complaint is not None:
        raise complaint
    raise ValueError(
        f"none of the first {_LOOKED_AT} rows is a JSON object, so the form of the rows cannot be "
        "told: name it with form="
    )
