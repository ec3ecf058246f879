"""Rows that look mislabelled: hard within their own class, with reasons."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lc_engine._util.csv_cells import inert
from lc_engine.data.batch import NO_LABEL, OK
from lc_engine.data.ranks import Groups, harder_rows, to_rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from lc_engine.data.features import Features
    from lc_engine.data.table import ScoreTable

# Listed: this share of the scored rows, and at least so many.
_SHARE: Final = 0.1
_LEAST: Final = 10
_CHUNK: Final = 8192
# Above it the response is no likelier with its prompt than without (arXiv 2308.12032, section 2).
_IFD: Final = 1.0


@dataclass(frozen=True, eq=False)
class Suspects:
    """The M rows of lowest rank, the hardest of equal ranks first.

    Attributes:
        measure: the column that ranks them, `ScoreTable.ranked_by`.
        rows: (M,) row numbers.
        rank: (M,) as in `ScoreTable.ranks`.
        hardness: (M,) of the measure.
        labels: (M,) −1 for none.
        groups: M names of the groups as (label, source).
        suggested: (M,) the class whose mean is nearest, −1 where that is the row's own or there are
            no classes or features.
        ratio: (M,) distance to that mean / distance to the mean of the own class; 1 where −1.
    """

    measure: str
    rows: NDArray[np.int64]
    rank: NDArray[np.float32]
    hardness: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: Sequence[tuple[int, str]]
    suggested: NDArray[np.int64]
    ratio: NDArray[np.float64]

    def reasons(self, classes: Sequence[str] | None) -> list[str]:
        """Return why each row is listed, in a sentence."""
        return [
            reason_of(
                self.measure,
                float(self.hardness[i]),
                float(self.rank[i]),
                group_name(group, classes),
                None if other == NO_LABEL else class_name(other, classes),
                float(self.ratio[i]),
            )
            for i, (group, other) in enumerate(
                zip(self.groups, self.suggested.tolist(), strict=True)
            )
        ]

    def suggestions(self, classes: Sequence[str] | None) -> list[str]:
        """Return the names of the suggested classes, "" for none."""
        found = self.suggested.tolist()
        return ["" if label == NO_LABEL else class_name(label, classes) for label in found]


def find_suspects(table: ScoreTable, most: int | None = None) -> Suspects:
    """Return the rows of a table that look mislabelled, from readings in pieces.

    Args:
        table: the scores; the class means are of the features that lie beside them.
        most: rows to return; None is a tenth of those with a score, at least 10.
    """
    if most is None:
        most = max(_LEAST, round(_SHARE * table.status_counts()[OK]))
    measure, groups = table.ranked_by, Groups()
    rows, numbers = np.empty(0, np.int64), np.empty(0, np.intp)
    hardness, sizes, start = np.empty(0, np.float32), np.empty(0, np.int64), 0
    names = dict.fromkeys((measure, *Groups.columns(table.column_names)))
    for piece in table.pieces(*names):
        values = np.asarray(piece.column(measure).to_numpy(), np.float32)
        scored = np.flatnonzero(~np.isnan(values))
        here = groups.numbers(piece)[scored]
        sizes = np.pad(sizes, (0, len(groups.names) - len(sizes)))
        sizes += np.bincount(here, minlength=len(sizes))
        rows = np.concatenate([rows, start + scored])
        numbers = np.concatenate([numbers, here])
        hardness = np.concatenate([hardness, values[scored]])
        harder = harder_rows(hardness, numbers)
        kept = harder < most  # no more of one group can be listed
        rows, numbers = rows[kept], numbers[kept]
        hardness, harder = hardness[kept], harder[kept]
        start += piece.num_rows
    if not len(rows):
        harder = np.empty(0, np.int64)
    rank = to_rank(harder, sizes[numbers])
    order = np.lexsort((rows, -hardness, rank))[:most]
    rows, numbers = rows[order], numbers[order]
    labels = np.array([groups.names[n][0] for n in numbers.tolist()], np.int64)
    suggested, ratio = np.full(len(rows), NO_LABEL, np.int64), np.ones(len(rows))
    classes = {label for label, _ in groups.names if label != NO_LABEL}
    if table.has_features and len(rows) and len(classes) > 1 and (labels != NO_LABEL).all():
        features = table.features()
        means = ClassMeans(features, labels_of(table))
        nearest, ratio = means.nearest(features, rows, labels)
        suggested = np.where(nearest == labels, NO_LABEL, nearest)
    return Suspects(
        measure,
        rows,
        rank[order],
        hardness[order],
        labels,
        [groups.names[n] for n in numbers.tolist()],
        suggested,
        ratio,
    )


def labels_of(table: ScoreTable) -> Iterator[NDArray[np.int64]]:
    """Return the labels of a table in pieces, −1 where a row has no score."""
    for piece in table.pieces("label", "status"):
        status = piece.column("status").combine_chunks().dictionary_encode()
        ok = np.array([name == OK for name in status.dictionary.to_pylist()], bool)
        is_ok = ok[np.asarray(status.indices)] if len(ok) else np.empty(0, bool)
        yield np.where(is_ok, np.asarray(piece.column("label").to_numpy()), NO_LABEL)


class ClassMeans:
    """The means of the features of each class, in float64, from one reading in pieces.

    Args:
        features: (N, D).
        labels: of the N rows, in pieces; a row of −1 is left out.
    """

    def __init__(self, features: Features, labels: Iterable[NDArray[np.int64]]) -> None:
        self.labels = np.empty(0, np.int64)
        self._sums, self._counts = np.zeros((0, features.shape[1])), np.empty(0)
        start = 0
        for piece in labels:
            self._grow(np.unique(piece[piece != NO_LABEL]))
            for first in range(0, len(piece), _CHUNK):
                here = piece[first : first + _CHUNK]
                self._add(features, start + first + np.flatnonzero(here != NO_LABEL), here)
            start += len(piece)

    def _grow(self, labels: NDArray[np.int64]) -> None:
        known, self.labels = self.labels, np.union1d(self.labels, labels)
        at = np.searchsorted(self.labels, known)
        sums, counts = np.zeros((len(self.labels), self._sums.shape[1])), np.zeros(len(self.labels))
        sums[at], counts[at] = self._sums, self._counts
        self._sums, self._counts = sums, counts

    def _add(self, features: Features, rows: NDArray[np.intp], labels: NDArray[np.int64]) -> None:
        if not len(rows):
            return
        piece = np.nan_to_num(np.asarray(features[rows], np.float64))
        own = np.searchsorted(self.labels, labels[labels != NO_LABEL])
        order = np.argsort(own, kind="stable")
        present, first = np.unique(own[order], return_index=True)
        self._sums[present] += np.add.reduceat(piece[order], first)
        self._counts += np.bincount(own, minlength=len(self.labels))

    def distances(
        self, features: Features, rows: NDArray[np.intp], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the distances (M, C) of rows to the means, that of its own class without the row.

        Args:
            features: (N, D).
            rows: (M,) row numbers.
            labels: (M,) of the rows, which were read for the means.

        Returns:
            Infinite where a row is alone in its class.
        """
        own, lines = np.searchsorted(self.labels, labels), np.arange(len(rows))
        means = self._sums / self._counts[:, None]
        x = np.asarray(features[rows], np.float64)
        squared = (x**2).sum(1)[:, None] - 2 * x @ means.T + (means**2).sum(1)
        distance = np.sqrt(np.maximum(squared, 0))
        n = self._counts[own]
        with np.errstate(divide="ignore", invalid="ignore"):
            # Without the row itself the mean is further away by n / (n − 1).
            scaled = distance[lines, own] * n / (n - 1)
        distance[lines, own] = np.where(n > 1, scaled, np.inf)
        return np.asarray(distance, np.float64)

    def nearest(
        self, features: Features, rows: NDArray[np.intp], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the class (M,) whose mean is nearest to each row, and how much nearer it is.

        Args:
            features: (N, D).
            rows: (M,) row numbers.
            labels: (M,) of the rows, which were read for the means.

        Returns:
            The classes, and distance to the nearest mean / distance to that of the row's own class;
            1 where the class is its own.
        """
        nearest, ratio = np.empty(len(rows), np.int64), np.ones(len(rows))
        for start in range(0, len(rows), _CHUNK):
            here = slice(start, start + _CHUNK)
            distance = self.distances(features, rows[here], labels[here])
            own = distance[np.arange(len(distance)), np.searchsorted(self.labels, labels[here])]
            nearest[here] = self.labels[distance.argmin(1)]
            other = nearest[here] != labels[here]
            ratio[here][other] = distance.min(1)[other] / own[other]
        return nearest, ratio


def group_name(group: tuple[int, str], classes: Sequence[str] | None) -> str:
    """Return the name of a group, "" for all rows of data without classes from one source."""
    label, source = group
    name = "" if label == NO_LABEL else class_name(label, classes)
    return f"{name} of {source}" if name and source else name or source


def class_name(label: int, classes: Sequence[str] | None) -> str:
    """Return the name of a class, its number where it has none."""
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)


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
        shown = f" ({ratio:.2f} of the distance to its own)" if ratio else ""  # 0: a row alone
        text += f"; the mean of {other} is nearer{shown}"
    return text


def to_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return columns as the text of a CSV file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(inert, row) for row in zip(*columns.values(), strict=True))
    return stream.getvalue()
