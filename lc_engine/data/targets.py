"""What the label of a row is: a class, a distribution over classes, anything else, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch

from lc_engine.data.batch import NO_LABEL
from lc_engine.data.faults import without_addresses
from lc_engine.data.fields import as_tensors
from lc_engine.data.labels import MISSING, int64_label

if TYPE_CHECKING:
    from torch import Tensor

# "class": an integer. "soft": votes for each class, or probabilities. "any": what a loss of the
# user's own takes. "none": labels are not read.
LabelKind = Literal["class", "soft", "any", "none"]
# Kinds whose rows are compared with more than the number of a class.
OWN_TARGETS: Final = ("soft", "any")
# The class of a token that is not counted, as in transformers.
IGNORED: Final = -100


class Label(NamedTuple):
    """A label.

    Attributes:
        number: of the class, of the most probable one, or −1.
        target: what the row is compared with, where that is not the number.
        complaint: why it is none, "" where it is one.
    """

    number: int
    target: Any = None
    complaint: str = ""


def read_label(kind: LabelKind, value: Any, classes: list[str] | None) -> Label:
    """Return the label that a data set gives."""
    if kind == "soft":
        return _soft(value)
    if kind == "none":
        return Label(NO_LABEL)
    shown = without_addresses(repr(value))
    number, complaint = int64_label(value, shown)
    if kind == "any":
        if value is None:
            return Label(NO_LABEL, None, MISSING)
        try:
            return Label(NO_LABEL if complaint else number, as_tensors(value))
        except ValueError as error:
            return Label(NO_LABEL, None, f"the label: {error}")
    if complaint:
        return Label(number, None, complaint)
    if number < 0:
        return Label(NO_LABEL, None, f"the label is {number}, but must not be negative")
    if classes is not None and number >= len(classes):
        wrong = f"the label is {number}, but there are {len(classes)} classes"
        return Label(NO_LABEL, None, wrong)
    return Label(number)


def _soft(value: Any) -> Label:
    if value is None:
        return Label(NO_LABEL, None, MISSING)
    try:
        votes: Tensor = as_tensors(value)
        votes = votes.double()
    except (ValueError, AttributeError):
        votes = torch.empty(0)
    total = float(votes.sum())
    fits = votes.dim() == 1 and len(votes) > 1 and bool((votes >= 0).all())
    if not fits or not 0 < total < float("inf"):
        shown = without_addresses(repr(value))
        return Label(
            NO_LABEL,
            None,
            f"the label must be votes or probabilities, a number from 0 on per class, got "
            f"{shown:.80}",
        )
    return Label(int(votes.argmax()), votes / total)
