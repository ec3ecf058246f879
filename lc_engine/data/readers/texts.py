"""Texts with labels as a source: columns of records, tokenized, each row with its status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
import torch

from lc_engine.data.batch import BAD_LABEL, NO_LABEL, OK, UNREADABLE, Batch
from lc_engine.data.fields import ATTENTION_MASK, Fields
from lc_engine.data.readers.record_source import RecordSource
from lc_engine.data.readers.records import RowError
from lc_engine.data.targets import IGNORED, OWN_TARGETS, Label, read_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.data.readers.records import Record, Records
    from lc_engine.data.targets import LabelKind

# Columns of texts by name, the first that are there: pairs of texts, one text, or words.
_COLUMNS: Final = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("text",),
    ("sentence",),
    ("tokens",),
    ("words",),
)
_WORDS: Final = ("tokens", "words")
_LABELS: Final = ("label", "labels", "ner_tags", "tags")
# Rows that are searched for one that is an object.
_SEARCHED_ROWS: Final = 100


@runtime_checkable
class EncodesTexts(Protocol):
    """What tokenizes texts; see `lc_engine.models.text_encoder.TextEncoder`."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the model's own classes; None where it has no names."""
        ...

    @property
    def classifies(self) -> bool:
        """Whether the model has classes of its own."""
        ...

    @property
    def window(self) -> int:
        """Most tokens of a row."""
        ...

    def encode(self, texts: Sequence[Any]) -> list[Any]:
        """Tokenize texts, all of one kind."""
        ...

    def padded(self, rows: Sequence[Any]) -> Fields:
        """Return tokenized rows as the inputs of the model."""
        ...


class TextSource(RecordSource):
    """Rows of texts and labels.

    Args:
        records: the rows.
        encoder: tokenizes them.
        text_column: of the text, of two texts with a comma between, or of a list of words; None
            takes the usual names, or the only column of texts.
        label_column: of the label; None takes the usual names.
        label_kind: what the labels are. A text is the name of a class: of the model's own where it
            has names, else of those that occur, sorted. Of words, "any" is a class per word.

    Raises:
        ValueError: columns that are not there, or names of classes that the model does not have.
    """

    # Sub-models are made once per batch, so a batch has many rows.
    batch_rows = 1024
    shard_rows = 8192

    def __init__(
        self,
        records: Records,
        encoder: EncodesTexts,
        text_column: str | None = None,
        label_column: str | None = None,
        label_kind: LabelKind = "class",
    ) -> None:
        super().__init__(records)
        self.encoder = encoder
        self.label_kind = label_kind
        names = self._names()
        self.label_column = _label_column(label_column, names, label_kind)
        self.text_columns = _text_columns(text_column, names, self.label_column)
        first = self._first.get(self.text_columns[0])
        in_words = self.text_columns[0] in _WORDS and isinstance(_parsed(first), list)
        self._of_words = isinstance(first, list) or in_words
        self.classes, self._numbers = self._class_names()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the number of rows, the columns and the classes."""
        return self.records.describe() | {
            "text_columns": list(self.text_columns),
            "label_column": self.label_column,
            "window": self.encoder.window,
            "classes": self.classes,
        }

    def _batch(self, cut: range, records: list[Record]) -> Batch:
        labels = [self._label(record.fields) for record in records]
        status = [OK] * len(cut)
        detail = [""] * len(cut)
        texts: dict[int, Any] = {}
        for i, (record, label) in enumerate(zip(records, labels, strict=True)):
            try:
                texts[i] = self._text(record.fields)
            except RowError as error:
                status[i], detail[i] = error.status, f"{record.where}: {error}"
                continue
            if label.complaint:
                status[i], detail[i] = BAD_LABEL, f"{record.where}: {label.complaint}"
                del texts[i]
        encoded = dict(zip(texts, self.encoder.encode(list(texts.values())), strict=True))
        targets: dict[int, Any] = {}
        for i, row in encoded.items():
            if row.is_cut:
                detail[i] = f"truncated: the first {self.encoder.window} tokens are read"
            targets[i] = labels[i].target
            if row.words is not None and self.label_kind == "any":
                aligned = _aligned(row.words, targets[i], len(texts[i]))
                if isinstance(aligned, str):
                    status[i], detail[i] = BAD_LABEL, f"{records[i].where}: {aligned}"
                else:
                    targets[i] = aligned
        ok = [i for i in encoded if status[i] == OK]
        return Batch(
            ids=np.arange(cut.start, cut.stop, dtype=np.int64),
            inputs=self.encoder.padded([encoded[i] for i in ok]) if ok else _no_rows(),
            labels=torch.tensor([label.number for label in labels], dtype=torch.int64),
            status=status,
            detail=detail,
            targets=[targets[i] for i in ok] if self.label_kind in OWN_TARGETS else None,
        )

    def _text(self, fields: Any) -> Any:
        """Return the text of a row, two texts, or its words.

        Raises:
            RowError: there is none.
        """
        if isinstance(fields, RowError):
            raise fields
        if not isinstance(fields, dict):
            raise RowError(UNREADABLE, "not an object with fields")
        found = [fields.get(name) for name in self.text_columns]
        if self._of_words:
            found = [_parsed(value) for value in found]
        for name, value in zip(self.text_columns, found, strict=True):
            fits = isinstance(value, str) or (
                len(found) == 1
                and isinstance(value, list)
                and len(value) > 0
                and all(isinstance(word, str) for word in value)
            )
            if not fits:
                raise RowError(
                    UNREADABLE, f"{name!r} must be a text or a list of words, got {value!r:.60}"
                )
            words: list[str] = value if isinstance(value, list) else [str(value)]
            if not any(word.strip() for word in words):
                raise RowError(UNREADABLE, f"{name!r} is empty: leave the row out")
        if len(found) == 2:
            return tuple(found)
        if isinstance(found[0], list) != self._of_words:
            kind = "a list of words" if self._of_words else "a text"
            raise RowError(UNREADABLE, f"{self.text_columns[0]!r} must be {kind} as in other rows")
        return found[0]

    def _label(self, fields: Any) -> Label:
        if self.label_kind == "none" or not isinstance(fields, dict) or self.label_column is None:
            return Label(NO_LABEL)
        value = fields.get(self.label_column)
        if self.label_kind in OWN_TARGETS:
            return read_label(self.label_kind, self._per_word(_parsed(value)), None)
        if isinstance(value, str):
            if value not in self._numbers:
                known = ", ".join(list(self._numbers)[:5]) or "numbers"
                return Label(NO_LABEL, None, f"the label is {value!r:.60}, the others are {known}")
            return read_label("class", self._numbers[value], self.classes)
        return read_label("class", value, self.classes)

    def _per_word(self, value: Any) -> Any:
        """Return the classes of words as numbers, where they have names."""
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            numbers = {name: i for i, name in enumerate(self.encoder.classes or ())}
            return [numbers.get(one, one) for one in value]
        return value

    def _names(self) -> list[str]:
        """Return the columns of the first row that is an object."""
        for record in self.records.read(0, min(len(self.records), _SEARCHED_ROWS)):
            if isinstance(record.fields, dict):
                self._first = record.fields
                return list(record.fields)
        raise ValueError(
            f"data: none of the first {_SEARCHED_ROWS} rows is an object with a text: give rows "
            "with a column of texts and one of labels"
        )

    def _class_names(self) -> tuple[list[str] | None, dict[str, int]]:
        """Return the names of the classes, and the class of each label that is a text."""
        known = None if self.encoder.classes is None else list(self.encoder.classes)
        if self.label_kind != "class" or self.label_column is None:
            return None, {}
        texts = set()
        for record in self.records.read(0, len(self)):
            value = record.fields.get(self.label_column) if isinstance(record.fields, dict) else 0
            if isinstance(value, str):
                texts.add(value)
            elif value is not None and not isinstance(record.fields, RowError):
                return None, {}  # numbers: a text among them is a bad label
        if known is not None and not texts.isdisjoint(known):
            return known, {name: i for i, name in enumerate(known)}
        if texts and all(_is_number(text) for text in texts):  # as all values of a CSV are texts
            return None, {text: int(text) for text in texts}
        if self.encoder.classifies and texts:
            raise ValueError(
                f"label_column {self.label_column!r} has the names {', '.join(sorted(texts)[:3])}, "
                f"and the model {'other ones' if known else 'none'}: give the numbers of its "
                "classes, or a model whose config has these names (id2label)"
            )
        found = sorted(texts)
        return found or None, {name: i for i, name in enumerate(found)}


def _label_column(asked: str | None, names: list[str], kind: LabelKind) -> str | None:
    if kind == "none":
        return None
    found = asked or next((name for name in _LABELS if name in names), None)
    if found is None or found not in names:
        raise ValueError(
            f"label_column {asked or ''!r}: name one of the columns {', '.join(names)}, or score "
            "without labels (label_kind none)"
        )
    return found


def _text_columns(asked: str | None, names: list[str], label: str | None) -> tuple[str, ...]:
    if asked is not None:
        wanted = tuple(name.strip() for name in asked.split(","))
        if len(wanted) > 2 or not set(wanted) <= set(names):
            raise ValueError(
                f"feature_column {asked!r}: name one or two (a,b) of the columns {', '.join(names)}"
            )
        return wanted
    for wanted in _COLUMNS:
        if set(wanted) <= set(names):
            return wanted
    others = [name for name in names if name != label]
    if len(others) != 1:
        raise ValueError(
            f"feature_column must be named: which of the columns {', '.join(names)} is the text, "
            "or which two (a,b) are?"
        )
    return (others[0],)


def _parsed(value: Any) -> Any:
    """Return a list that a CSV holds as JSON text; any other value as it is."""
    if isinstance(value, str) and value.startswith("["):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return found if isinstance(found, list) else value
    return value


def _aligned(words: list[int | None], labels: Any, count: int) -> torch.Tensor | str:
    """Return a class per token, of the first token of each word; or what is wrong."""
    if not isinstance(labels, torch.Tensor) or labels.shape != (count,):
        shape = tuple(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
        return f"there are {count} words, and their labels have the shape {shape}"
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        return f"the labels of words must be integers, got {labels.dtype}"
    if bool(((labels < 0) & (labels != IGNORED)).any()):
        least = int(labels[labels != IGNORED].min())
        return f"a word has the label {least}: classes are numbers from 0 on, {IGNORED} is none"
    found = torch.full((len(words),), IGNORED, dtype=torch.int64)
    for i, word in enumerate(words):
        if word is not None and (i == 0 or words[i - 1] != word):
            found[i] = int(labels[word])
    return found if bool((found != IGNORED).any()) else "no word that is read has a label"


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _no_rows() -> Fields:
    empty = torch.empty((0, 0), dtype=torch.int64)
    return Fields({"input_ids": empty, ATTENTION_MASK: empty})
