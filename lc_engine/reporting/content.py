"""What the page shows, worked out once: rows by number, with their previews, lists and notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.batch import OK
from lc_engine.reporting.duplicates import Duplicate, near_duplicates
from lc_engine.reporting.previews import Preview
from lc_engine.reporting.scored_data import ScoredData, are_features, data_of
from lc_engine.reporting.subsets import read_subsets
from lc_engine.reporting.survey import Survey, path_confidences, take
from lc_engine.reporting.token_shades import shade
from lc_engine.selection.suspicious import ClassMeans, class_name, find_suspects, labels_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lc_engine.data.table import ScoreTable
    from lc_engine.language.scorer import CausalLMScorer
    from lc_engine.reporting.run import Run

# Of images and texts: keeps the page below 15 MB, whatever they weigh.
PREVIEW_BYTES = 8_000_000
LISTED = 24
SUSPICIOUS = 200
_FEATURES = "The data are features: there is no image or text to show."


@dataclass(frozen=True)
class Row:
    """A row as a gallery or a table shows it; `point` is its index in the page's data."""

    point: int
    id: str
    label: str | None
    lc: float
    loss: float
    lc_std: float
    preview: Preview | None
    suggested: str = ""
    reason: str = ""


class Content:
    """What the page shows of a score table.

    Args:
        table: the scores.
        run: behind them.
        data: as in `report`, like the arguments that follow.
        subset: see `data`.
        points: see `data`.
        previews: see `data`.
        seed: see `data`.
        carry: see `data`.
        scorer: see `data`.

    Attributes:
        numbers: (M,) row numbers of the page's rows, ascending: those of the map and of the lists.
        taken: the M rows of the table.
        columns: label, lc, loss and lc_std (M,) by name.
        carried: texts (M,) by the name of a column of the data.
        kept: (S, M) whether each selection keeps a row.
        paths: (M, K) confidences, or None.
        nearest: (M,) the class whose mean is nearest, −1 where unknown; None without features or
            classes.
        warnings: sentences for the top of the page.
    """

    def __init__(
        self,
        table: ScoreTable,
        run: Run,
        *,
        data: Any,
        subset: Any,
        points: int,
        previews: int,
        seed: int,
        carry: Sequence[str],
        scorer: CausalLMScorer | None,
    ) -> None:
        self.table, self.run, self.warnings = table, run, list(run.warnings())
        self.rows, self.status = len(table), table.status_counts()
        self.subsets = read_subsets(subset, table.id_type)
        opened = self._opened(data, carry)
        columns = opened.columns(carry) if opened is not None and carry else {}
        self.survey = survey = Survey(
            table, self.subsets, columns, drawn=points, listed=LISTED, bad=SUSPICIOUS, seed=seed
        )
        self.suspects = find_suspects(table, SUSPICIOUS)
        self._check_subsets()
        self.borders = {name: survey.border(i, LISTED // 2) for i, name in enumerate(self.subsets)}
        self.duplicates = self._duplicates(seed)
        galleries = [survey.easiest, survey.hardest, self.suspects.rows[:LISTED], *survey.alone]
        galleries += [side for border in self.borders.values() for side in border[1:]]
        galleries += [np.array(pair[:2], np.int64) for pair in self.duplicates]
        shown = np.unique(np.concatenate(galleries))
        listed = np.union1d(shown, np.concatenate([self.suspects.rows, survey.bad]))
        self.numbers = np.union1d(listed, survey.drawn)
        self.taken = taken = take(table, self.numbers)
        self.kept = survey.kept(taken)
        self.ids = [str(value) for value in taken.column("id").to_pylist()]
        self.columns = {
            name: np.asarray(taken.column(name).to_numpy(zero_copy_only=False))
            for name in ("label", "lc", "loss", "lc_std")
        }
        self.carried = {name: values[self.numbers] for name, values in columns.items()}
        self.ok = np.array(taken.column("status").to_pylist()) == OK
        self.paths = path_confidences(taken) if survey.has_path else None
        self.nearest = self._nearest()
        self.classes = run.classes or (None if opened is None else opened.classes)
        self.previews: dict[int, Preview] = {}
        if opened is not None:
            self.previews = self._previews(opened, data is None, listed, previews, seed)
        if scorer is not None and opened is not None:
            rows = np.array([row for row in shown.tolist() if row in self.previews], np.int64)
            shade(scorer, opened, rows, self.previews)
        self._warn()

    def _opened(self, data: Any, carry: Sequence[str]) -> ScoredData | None:
        """Open the data; those that the run names only if they are still what was scored."""
        implied = data is None
        if implied:
            data = data_of(self.run)
            if data is None:
                if carry:
                    raise ValueError(f"carry: name the data that have the column {carry[0]!r}")
                self.warnings.append("Images and texts are not shown: the page got no data.")
                return None
        if are_features(data):
            if carry:
                raise ValueError(f"carry: {data} has no columns")
            self.warnings.append(_FEATURES)
            return None
        try:
            return ScoredData(data, self.run, self.rows)
        except ValueError as error:
            if not implied or carry:
                raise
            self.warnings.append(f"Images and texts are not shown: {error}.")
            return None

    def _check_subsets(self) -> None:
        for i, (name, ids) in enumerate(self.subsets.items()):
            kept = sum(int(total.kept[i]) for total in self.survey.classes.values())
            if len(ids) and not kept:
                raise ValueError(
                    f"subset {name}: none of its {len(ids):,} ids is a scored row of the table"
                )
            if kept < len(ids):
                self.warnings.append(
                    f"{len(ids) - kept:,} of the {len(ids):,} ids of {name} are not scored rows of "
                    "this table."
                )

    def _duplicates(self, seed: int) -> list[Duplicate]:
        if not self.table.has_features:
            return []
        return near_duplicates(self.table.features(), self.survey.drawn, LISTED // 2, seed)

    def _nearest(self) -> NDArray[np.int64] | None:
        """Return the class that each row of the page lies nearest to, by the means of features."""
        labels = self.columns["label"].astype(np.int64)
        rows = np.flatnonzero(self.ok & (labels >= 0))
        if not self.table.has_features or len(self.survey.classes) < 2 or not len(rows):
            return None
        features = self.table.features()
        means = ClassMeans(features, labels_of(self.table))
        found = np.full(len(labels), -1, np.int64)
        found[rows] = means.nearest(features, self.numbers[rows], labels[rows])[0]
        return found

    def _previews(
        self, opened: ScoredData, implied: bool, listed: NDArray[np.int64], limit: int, seed: int
    ) -> dict[int, Preview]:
        listed = listed[:limit]
        others = np.setdiff1d(self.numbers, listed)
        more = min(limit - len(listed), len(others))
        drawn = np.random.default_rng(seed).choice(others, more, replace=False)
        rows = np.union1d(listed, drawn)
        try:
            found = dict(opened.previews(rows, [self.ids[i] for i in self._points(rows)]))
        except ValueError as error:
            if not implied:
                raise
            self.warnings.append(f"Images and texts are not shown: {error}.")
            return {}
        # A listed row is shown up to three times: in a gallery, in the table and on the map.
        sizes = [(n, 3) for n in listed.tolist()] + [(n, 1) for n in drawn.tolist()]
        total, kept = 0, dict[int, Preview]()
        for number, times in sizes:
            if number in found:
                total += times * found[number].size
                if total > PREVIEW_BYTES:
                    break
                kept[number] = found[number]
        if not found:
            self.warnings.append(_FEATURES)
        elif len(kept) < len(self.numbers):
            self.warnings.append(
                f"{len(kept):,} of the {len(self.numbers):,} rows of the page come with their "
                "image or text."
            )
        return kept

    def _warn(self) -> None:
        bad = self.rows - self.status[OK]
        if bad:
            self.warnings.append(f"{bad:,} of {self.rows:,} rows have no score.")
        note = self.table.lc_note()
        if note:
            self.warnings.append(f"{note}.")
        if not self.survey.has_path and len(self.run.capacities) != 1:
            self.warnings.append(
                "The scores hold no path: score with --save-path (return_path=True) to see "
                "confidence against capacity."
            )

    def _points(self, numbers: NDArray[np.int64]) -> list[int]:
        found: list[int] = np.searchsorted(self.numbers, numbers).tolist()
        return found

    @property
    def has_labels(self) -> bool:
        """Whether the rows have classes."""
        return any(label >= 0 for label in self.survey.classes)

    def label(self, number: int) -> str | None:
        """Return the name of a class, None for no label."""
        return None if number < 0 else class_name(number, self.classes)

    def row(self, number: int, reason: str = "") -> Row:
        """Return a row of the page by its number in the table."""
        (point,) = self._points(np.array([number]))
        lc, loss, lc_std = (float(self.columns[name][point]) for name in ("lc", "loss", "lc_std"))
        own = int(self.columns["label"][point])
        other = own if self.nearest is None else int(self.nearest[point])
        suggested = "" if other in (own, -1) else self.label(other) or ""
        preview = self.previews.get(int(number))
        return Row(
            point, self.ids[point], self.label(own), lc, loss, lc_std, preview, suggested, reason
        )

    def listed(self, numbers: NDArray[np.int64]) -> list[Row]:
        """Return rows of the page by their numbers in the table."""
        return [self.row(number) for number in numbers.tolist()]

    def kept_by(self) -> Mapping[str, int]:
        """Return how many rows each selection keeps."""
        totals = self.survey.classes.values()
        return {name: sum(int(t.kept[i]) for t in totals) for i, name in enumerate(self.subsets)}
