"""Rows that look mislabelled: hard within their own class, with reasons."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lc_engine._util.csv_cells import inert
from lc_engine._util.grouped import rank_within_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lc_engine.data.features import Features
    from lc_engine.data.table import ScoreTable

# Listed: this share of the scored rows, and at least so many.
_SHARE: Final = 0.1
_LEAST: Final = 100
_CHUNK: Final = 8192
# Above it the response is no likelier with its prompt than without (arXiv 2308.12032, section 2).
_IFD: Final = 1.0


class Measure(NamedTuple):
    """What ranks rows: the name of the column, and the hardness (N,), NaN without a score."""

    name: str
    hardness: NDArray[np.float64]


def measure_of(table: ScoreTable) -> Measure:
    """Return what tells wrong rows best: IFD where there is one, else the loss.

    IFD compares an answer with and without its question, so one to another question stands out.
    """
    name = "ifd" if "ifd" in table.column_names else "loss"
    return Measure(name, np.asarray(table.column(name), np.float64))


def ranks(hardness: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the rank (N,) of each row within its group: 0 is the hardest, 1 the easiest.

    Args:
        hardness: (N,), NaN for a row without a score, whose rank is NaN.
        groups: (N,); −1 for a row without a group, likewise.

    Returns:
        Rank / (rows of the group − 1); 0.5 for a row alone.
    """
    found = np.full(len(groups), np.nan, np.float32)
    rows = np.flatnonzero((groups >= 0) & ~np.isnan(hardness))
    if not len(rows):
        return found
    sizes = np.bincount(groups[rows]).astype(np.int64)
    rank = rank_within_groups((-hardness[rows]).astype(np.float32), groups[rows], sizes)
    last = sizes[groups[rows]] - 1
    found[rows] = np.where(last > 0, rank / np.maximum(last, 1), 0.5)
    return found


def listed(rank: NDArray[np.float32], hardness: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the rows (M,) of lowest rank, the hardest of equal ranks first."""
    rows = np.flatnonzero(~np.isnan(rank))
    count = min(len(rows), max(_LEAST, round(_SHARE * len(rows))))
    order = np.lexsort((rows, -hardness[rows], rank[rows]))
    return rows[order[:count]]


def nearest_classes(
    features: Features, labels: NDArray[np.int64], ok: NDArray[np.bool_], rows: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the class (M,) whose mean is nearest to each row, and how much nearer it is.

    A row does not count towards the mean of its own class. In float64, from two readings of the
    features in pieces.

    Args:
        features: (N, D).
        labels: (N,) of the rows.
        ok: (N,) which rows have a score.
        rows: (M,) the rows to look at, all of them ok.

    Returns:
        The classes, and distance to the nearest mean / distance to that of the row's own class; 1
        where the class is its own. A class of one row has no mean for that row.
    """
    names, index = np.unique(labels[ok], return_inverse=True)
    where = np.flatnonzero(ok)
    sums, counts = np.zeros((len(names), features.shape[1])), np.bincount(index).astype(np.float64)
    for start in range(0, len(where), _CHUNK):
        piece = np.asarray(features[where[start : start + _CHUNK]], np.float64)
        classes = index[start : start + _CHUNK]
        order = np.argsort(classes, kind="stable")
        present, first = np.unique(classes[order], return_index=True)
        sums[present] += np.add.reduceat(np.nan_to_num(piece[order]), first)
    own = np.searchsorted(names, labels[rows])
    nearest, ratio = np.empty(len(rows), np.int64), np.empty(len(rows))
    means = sums / counts[:, None]
    for start in range(0, len(rows), _CHUNK):
        here = slice(start, start + _CHUNK)
        x = np.asarray(features[rows[here]], np.float64)
        squared = (x**2).sum(1)[:, None] - 2 * x @ means.T + (means**2).sum(1)
        distance = np.sqrt(np.maximum(squared, 0))
        lines = np.arange(len(x))
        n = counts[own[here]]
        with np.errstate(divide="ignore", invalid="ignore"):
            # Without the row itself the mean is further away by n / (n − 1).
            scale = np.where(n > 1, n / (n - 1), np.inf)
            distance[lines, own[here]] = np.where(n > 1, distance[lines, own[here]] * scale, np.inf)
        best = distance.argmin(1)
        nearest[here] = names[best]
        with np.errstate(invalid="ignore"):
            ratio[here] = np.where(
                best == own[here], 1.0, distance[lines, best] / distance[lines, own[here]]
            )
    return nearest, ratio


def reason_of(
    measure: str, value: float, rank: float, group: str, other: str | None, ratio: float
) -> str:
    """Return why a row is listed, in a sentence.

    Args:
        measure: "ifd" or "loss".
        value: of it.
        rank: within the group.
        group: its name, "" where there is one group.
        other: the class whose mean is nearer, if that is not its own.
        ratio: of the distances.
    """
    where = f" of {group}" if group else ""
    text = f"{measure} {value:.3g}, harder than {100 * (1 - rank):.0f} %{where}"
    if measure == "ifd" and value >= _IFD:
        text += "; the answer is no likelier with its question than without"
    if other is not None:
        shown = "" if np.isinf(ratio) else f" ({ratio:.2f} of the distance to its own)"
        text += f"; the mean of {other} is nearer{shown}"
    return text


def to_csv(columns: dict[str, Sequence[Any]]) -> str:
    """Return columns as the text of a CSV file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(inert, row) for row in zip(*columns.values(), strict=True))
    return stream.getvalue()
