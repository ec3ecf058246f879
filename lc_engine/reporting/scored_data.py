"""The data that were scored, opened again for what a person sees of their rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.batch import OK
from lc_engine.data.carried import carried
from lc_engine.data.locations import named_locations
from lc_engine.data.open import open_source
from lc_engine.data.readers.record_files import open_rows
from lc_engine.data.wrap.mixture import Mixture, has_sources
from lc_engine.data.wrap.subset import Subset
from lc_engine.language.formats import check_format, conversations, detect
from lc_engine.language.images.rows import read_conversations
from lc_engine.language.source import open_records
from lc_engine.reporting.previews import Preview, of_columns, of_conversations, of_image, thumbnail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lc_engine.data.batch import Source
    from lc_engine.data.readers.records import Record, Records
    from lc_engine.language.conversation import Conversation
    from lc_engine.reporting.run import Run

_FEATURES = (".npy", ".safetensors")


def are_features(data: Any) -> bool:
    """Return whether data are features alone, without anything to be seen or further columns."""
    parts = data.values() if has_sources(data) else [data]
    return all(isinstance(one, str | os.PathLike) and str(one).endswith(_FEATURES) for one in parts)


def data_of(run: Run) -> Any:
    """Return the location of the data that a run names, None if they are not there any more."""
    named = run.options.get("data")
    data = named_locations(named) if isinstance(named, list) else named
    parts = data.values() if isinstance(data, dict) else [data]
    return data if all(one is not None and Path(one).exists() for one in parts) else None


class ScoredData:
    """Rows of the data behind a score table.

    Args:
        data: what `open_source` takes, or of a language run `open_records`.
        run: behind the table.
        rows: of the table.

    Raises:
        ValueError: the data are not those of the table.
        FileNotFoundError: they are not there.
    """

    def __init__(self, data: Any, run: Run, rows: int) -> None:
        self._is_texts, self._texts = run.reads_records, run.text_columns
        self._form = check_format(run.form) if run.is_language else None
        self._has_images = run.has_images
        self._stored: Source | Records | Mixture
        opened = open_records if run.is_language else open_rows
        if self._is_texts and has_sources(data):
            self._stored = Mixture({name: opened(one) for name, one in data.items()})
        elif self._is_texts:
            self._stored = opened(data)
        else:
            self._stored = open_source(
                data, transform=thumbnail, **(run.opening | {"labels": None})
            )
        if len(self._stored) != rows:
            raise ValueError(
                f"data: {len(self._stored):,} rows, but the score table has {rows:,}: pass the "
                "data that were scored"
            )
        wanted = run.metadata.get("data_digest")
        self._is_same = self._stored.digest() == wanted
        if self._is_texts and wanted is not None and not self._is_same:
            raise ValueError(
                "data: their digest is not that of the score table: these are not the data that "
                "were scored, or they changed since"
            )

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, by label."""
        found: list[str] | None = getattr(self._stored, "classes", None)
        return found

    def columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return further columns of the data as texts (N,).

        Raises:
            ValueError: the data have no such column, or not of plain values.
        """
        return carried(self._stored, names)

    def conversations(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[int, Sequence[Conversation]]]:
        """Yield the conversations of rows of texts; of a pair two. Rows without any are left out.

        Args:
            rows: (M,) row numbers, ascending.
        """
        for row, record, folder in self._records(rows):
            try:
                form = self._form or detect(record.fields)
                if self._has_images:
                    yield row, read_conversations(record.fields, form, folder)
                else:
                    yield row, conversations(record.fields, form)
            except ValueError:
                continue  # the row's status says what is wrong with it

    def _records(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, Record, Path]]:
        """Yield rows of texts by their numbers, and the folder of the files that they name.

        Consecutive ones are read together.
        """
        assert self._is_texts
        start = 0
        for records, here in self._parts(rows):
            for run in np.split(here, np.flatnonzero(np.diff(here) > 1) + 1) if len(here) else ():
                read = records.read(int(run[0]), int(run[-1]) + 1)
                for row, record in zip(run.tolist(), read, strict=True):
                    yield start + row, record, records.folder
            start += len(records)

    def _parts(self, rows: NDArray[np.int64]) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Yield the records of each source, and its part of some rows, numbered within it."""
        if isinstance(self._stored, Mixture):
            for name, here in self._stored.rows_of(rows):
                yield self._stored.sources[name], here
        else:
            yield self._stored, rows

    def previews(
        self, rows: NDArray[np.int64], ids: Sequence[Any]
    ) -> Iterator[tuple[int, Preview]]:
        """Yield what is to be seen of rows, by row number; those without anything are left out.

        Args:
            rows: (M,) row numbers, ascending.
            ids: their M ids in the score table.

        Raises:
            ValueError: the data are not those of the table.
        """
        if self._texts:
            for row, record, _ in self._records(rows):
                if isinstance(record.fields, dict):
                    yield row, of_columns(record.fields, self._texts)
            return
        if self._is_texts:
            for row, said in self.conversations(rows):
                yield row, of_conversations(said)
            return
        at = 0
        for batch in Subset(self._stored, rows).batches(64) if len(rows) else ():  # type: ignore[arg-type]
            inputs = iter(batch.inputs)
            for name, status in zip(batch.ids, batch.status, strict=True):
                row, wanted = int(rows[at]), ids[at]
                at += 1
                if not self._is_same and str(name) != str(wanted):
                    raise ValueError(
                        f"data: row {row} is {name!s:.80}, in the score table it is "
                        f"{wanted!s:.80}: these are not the data that were scored"
                    )
                preview = of_image(next(inputs)) if status == OK else None
                if preview is not None:
                    yield row, preview
