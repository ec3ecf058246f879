"""Previews of rows: a small WebP of an image, the turns of a text."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.open import open_source
from lc_engine.data.readers.record_files import open_rows
from lc_engine.data.wrap.mixture import Mixture, has_sources
from lc_engine.data.wrap.subset import Subset
from lc_engine.language.formats import check_format, conversations, detect
from lc_engine.language.source import open_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from lc_engine.data.readers.records import Record, Records
    from lc_engine.language.conversation import Conversation

SIDE = 96  # pixels of a thumbnail
_QUALITIES = (70, 30, 0)  # the first whose WebP fits
_BYTES = 12_288
_TEXT = 1200  # characters of a turn
_TURNS = 8


class Preview(NamedTuple):
    """What a person sees of a row: an image as a data URI, or turns as (role, text)."""

    image: str | None = None
    turns: list[tuple[str, str]] | None = None

    @property
    def size(self) -> int:
        """Characters of the image's data URI, or of the texts."""
        return len(self.image or "") + sum(len(text) for _, text in self.turns or ())

    def to_dict(self) -> dict[str, Any]:
        """Return the preview as JSON values."""
        return {"image": self.image} if self.image else {"turns": self.turns}


def image_previews(
    data: Any,
    rows: NDArray[np.int64],
    ids: Sequence[Any],
    *,
    table_rows: int,
    data_digest: str | None,
    columns: Mapping[str, str | None],
) -> tuple[dict[int, Preview], list[str] | None]:
    """Return thumbnails by row number, and the names of the classes.

    Args:
        data: what `open_source` takes.
        rows: (M,) row numbers, ascending.
        ids: their M ids in the score table.
        table_rows: rows of the score table.
        data_digest: of the data that were scored.
        columns: feature_column and label_column, as in `open_source`.

    Raises:
        ValueError: the data are not those of the table.
    """
    require("PIL.Image", "report")
    source = open_source(data, transform=_thumbnail, **columns)  # type: ignore[arg-type]
    _check_rows(len(source), table_rows)
    same = source.digest() == data_digest
    found: dict[int, Preview] = {}
    at = 0
    for batch in Subset(source, rows).batches(64) if len(rows) else ():
        inputs = iter(batch.inputs)
        for row, name, status in zip(
            rows[at : at + len(batch)], batch.ids, batch.status, strict=True
        ):
            if not same and str(name) != str(ids[at]):
                raise ValueError(
                    f"data: row {row} is {name!s:.80}, in the score table it is {ids[at]!s:.80}: "
                    "these are not the data that were scored"
                )
            at += 1
            if status == OK:
                uri = _data_uri(next(inputs))
                if uri is not None:
                    found[int(row)] = Preview(image=uri)
    return found, source.classes


def text_previews(
    data: Any, rows: NDArray[np.int64], *, table_rows: int, form: str | None
) -> dict[int, Preview]:
    """Return the turns of conversations by row number; a row without turns is left out.

    Args:
        data: what `lc_engine.language.source.open_records` takes.
        rows: (M,) row numbers, ascending.
        table_rows: rows of the score table.
        form: format of the rows; None detects it in each.

    Raises:
        ValueError: the data are not those of the table.
    """
    named = check_format(form)
    found = {}
    for row, record in _some(data, open_records, rows, table_rows):
        try:
            said = conversations(record.fields, named or detect(record.fields))
        except ValueError:
            continue  # the row's status says what is wrong with it
        found[row] = Preview(turns=list(_shortened(_turns(said))))
    return found


def column_previews(
    data: Any, rows: NDArray[np.int64], *, table_rows: int, columns: Sequence[str]
) -> dict[int, Preview]:
    """Return the texts that an encoder read, by row number; a row without them is left out.

    Args:
        data: what `lc_engine.data.readers.record_files.open_rows` takes.
        rows: (M,) row numbers, ascending.
        table_rows: rows of the score table.
        columns: of the texts.

    Raises:
        ValueError: the data are not those of the table.
    """
    found = {}
    for row, record in _some(data, open_rows, rows, table_rows):
        if isinstance(record.fields, dict):
            values = [(name, record.fields.get(name)) for name in columns]
            turns = [
                {"role": name, "content": " ".join(map(str, value))}
                if isinstance(value, list)
                else {"role": name, "content": str(value)}
                for name, value in values
                if value is not None
            ]
            found[row] = Preview(turns=list(_shortened(turns)))
    return found


def _some(
    data: Any, opened: Callable[[Any], Records], rows: NDArray[np.int64], table_rows: int
) -> Iterator[tuple[int, Record]]:
    """Yield rows by their numbers, ascending; consecutive ones are read together.

    Args:
        data: of one source, or of several by name.
        opened: opens the records of one.
        rows: (M,) row numbers.
        table_rows: rows of the score table.
    """
    parts = data if has_sources(data) else {"data": data}
    whole = Mixture({name: opened(one) for name, one in parts.items()})
    _check_rows(len(whole), table_rows)
    start = 0
    for name, here in whole.rows_of(rows):
        records = whole.sources[name]
        for run in np.split(here, np.flatnonzero(np.diff(here) > 1) + 1) if len(here) else ():
            for row, record in zip(run, records.read(int(run[0]), int(run[-1]) + 1), strict=True):
                yield start + int(row), record
        start += len(records)


def _check_rows(rows: int, table_rows: int) -> None:
    if rows != table_rows:
        raise ValueError(
            f"data: {rows:,} rows, but the score table has {table_rows:,}: pass the data that were "
            "scored"
        )


def _turns(said: Sequence[Conversation]) -> list[Mapping[str, Any]]:
    """Return the turns of a row; of a preference pair also the last of the rejected answer."""
    turns: list[Mapping[str, Any]] = [*said[0].messages]
    for other in said[1:]:
        turns.append(other.messages[-1] | {"role": "rejected"})
    return turns


def _shortened(turns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for turn in turns[:_TURNS]:
        rest = len(turn["content"]) - _TEXT
        more = f" … ({rest:,} more characters)" if rest > 0 else ""
        yield turn["role"], turn["content"][:_TEXT] + more
    if len(turns) > _TURNS:
        yield "…", f"{len(turns) - _TURNS} more turns"


def _thumbnail(image: Any) -> torch.Tensor:
    """Return a WebP of an image, at most SIDE pixels wide and high, padded to (_BYTES,) uint8.

    Encoded here, by the threads that decode, and as a tensor, because a transform returns one.
    """
    import torch

    pil = require("PIL.Image", "report")
    scale = SIDE / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    # Few pixels are kept as pixels; many are averaged.
    small = image.resize(size, pil.Resampling.NEAREST if scale > 1 else pil.Resampling.BOX)
    for quality in _QUALITIES:
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=quality, method=2)
        if stream.tell() <= _BYTES:
            break
    return torch.from_numpy(np.frombuffer(stream.getvalue().ljust(_BYTES, b"\0"), np.uint8).copy())


def _data_uri(padded: torch.Tensor) -> str | None:
    """Return a thumbnail as a data URI; None for an input that is none, such as features."""
    if padded.shape != (_BYTES,) or str(padded.dtype) != "torch.uint8":
        return None
    content = padded.numpy().tobytes()
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return None
    length = 8 + int.from_bytes(content[4:8], "little")
    return "data:image/webp;base64," + base64.b64encode(content[:length]).decode()
