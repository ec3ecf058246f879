"""How rows are chosen: the arguments of a selection, with the budgets that people have."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from lc_engine.data.carried import carried
from lc_engine.data.readers.images import ImageFolderSource
from lc_engine.data.readers.jsonl import JsonLines
from lc_engine.data.wrap.mixture import Mixture
from lc_engine.data.writers.json_rows import line_bytes
from lc_engine.pruning.columns import Columns
from lc_engine.selection.arguments import check_seed
from lc_engine.selection.budget import check_keep, check_shares
from lc_engine.selection.decide import check_strategy, decide
from lc_engine.selection.exceptions import Exceptions
from lc_engine.selection.noise_guard import check_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.features import Features
    from lc_engine.data.table import ScoreTable
    from lc_engine.pruning.rows import Stored
    from lc_engine.selection.auto_gamma.cross_validation import Objective
    from lc_engine.selection.budget import Bound
    from lc_engine.selection.decide import Selection

_log = logging.getLogger(__name__)

# A selection whose size is between this share of the budget and all of it is taken.
_FILLED: Final = 0.99
_TRIES: Final = 12


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rows of scored data are kept.

    Attributes:
        keep: a fraction of the scored rows, or a count; None where a size is given.
        keep_tokens: most response tokens, by the column `token_count` of the scores.
        keep_bytes: most bytes, of image files or of lines of JSON.
        strategy: a name; "auto" tries them out on the features.
        gamma: of FlexRand.
        by: the column whose values share the budget: of the scores or of the data.
        carry: columns of the data that `rows.parquet` gets.
        seed: of every draw.
        score: "loss" or "lc".
        floor: least number kept per group.
        cap: greatest number kept per group.
        shares: {value of `by`: share of the budget}.
        noise_guard: share of each group to set aside first.
        balance: as in `select`.
        objective: as in `select`.
        always: ids to keep, counted towards the budget.
        never: ids to leave out.
        unscored: whether rows without a score are kept, beside the budget, or dropped.
    """

    keep: float | None = None
    keep_tokens: int | None = None
    keep_bytes: int | None = None
    strategy: str = "auto"
    gamma: float | Literal["auto"] = "auto"
    by: str | None = "label"
    carry: Sequence[str] = ()
    seed: int = 0
    score: str = "loss"
    floor: Bound = None
    cap: Bound = None
    shares: Mapping[str, float] = field(default_factory=dict)
    noise_guard: float = 0.0
    balance: float | None = None
    objective: Objective = "balanced"
    always: ArrayLike = ()
    never: ArrayLike = ()
    unscored: Literal["drop", "keep"] = "drop"

    def check(self) -> None:
        """Refuse arguments that suit no data, before anything is scored.

        Raises:
            ValueError: naming them.
        """
        given = [n for n in ("keep", "keep_tokens", "keep_bytes") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                "give one of keep, keep_tokens and keep_bytes"
                + (f", not {' and '.join(given)}" if given else "")
            )
        if self.keep is not None:
            check_keep(self.keep)
        check_strategy(self.strategy, self.gamma)
        check_guard(self.noise_guard)
        check_shares(self.shares)
        check_seed(self.seed)
        if isinstance(self.floor, int) and isinstance(self.cap, int) and self.floor > self.cap:
            raise ValueError(f"floor {self.floor} is above cap {self.cap}")
        for name in ("keep_tokens", "keep_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.unscored not in ("drop", "keep"):
            raise ValueError(f'unscored must be "drop" or "keep", got {self.unscored!r}')

    def check_rows(self, rows: int) -> None:
        """Refuse what this number of rows cannot meet, whatever their scores.

        Args:
            rows: N of the data, scored or not.

        Raises:
            ValueError: more rows to keep than there are, or than `never` leaves; fewer than
                `always` names.
        """
        if self.keep is None:
            return
        never, always = (len(np.unique(np.asarray(ids))) for ids in (self.never, self.always))
        is_count = isinstance(self.keep, int | np.integer)
        if is_count and self.keep > rows - never:
            named = f", of which never_keep names {never:,}" if never else ""
            raise ValueError(
                f"keep asks for {self.keep:,} rows, but the data have {rows:,}{named}: give less, "
                "or a fraction as a float (1.0 keeps everything)"
            )
        budget = int(self.keep if is_count else round(self.keep * (rows - never)))
        if always > budget:
            raise ValueError(
                f"always_keep names {always:,} rows, but keep asks for {budget:,}: give more"
            )

    def warn_without_ifd(self) -> None:
        """Warn, before instruction data are scored without IFD, of what "auto" can make of it."""
        if self.strategy == "auto" and self.gamma == "auto":
            _log.warning(
                "of instruction data without ifd, strategy auto keeps random rows, whatever their "
                "scores, unless a group keeps less than 50: take ifd=True (--ifd), by which "
                "doubtful answers are set aside, or name a strategy"
            )

    def columns(self, table: ScoreTable, stored: Stored | None) -> Columns:
        """Return the columns of the scores, and those of the data that are asked for.

        Raises:
            ValueError: a column that neither has.
        """
        names = list(dict.fromkeys(self.carry))
        if self.by is not None and self.by not in (*table.column_names, *names):
            names.append(self.by)
        if names and stored is None:
            raise ValueError(f"by: the scores have no column {names[0]!r}: name the data too")
        return Columns(table, {} if stored is None else carried(stored, names))

    def decide(
        self,
        columns: Columns,
        stored: Stored | None,
        classes: Sequence[str] | None = None,
        features: ArrayLike | Features | None = None,
    ) -> Selection:
        """Choose.

        Args:
            columns: of the scores and of the data.
            stored: the data, where their bytes count.
            classes: names of the classes, by which `shares` may go.
            features: as in `select`.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        if self.keep is not None:
            return self._decide(columns, self.keep, classes, features)
        sizes, limit = self._sizes(columns.table, stored)
        scored = np.asarray(columns.table.column("status")) == "ok"
        first = self._decide(columns, _first_count(sizes[scored], limit), classes, features)
        gamma: float | Literal["auto"] = "auto" if first.gamma is None else first.gamma
        guard = max(self.noise_guard, first.noise_guard)
        settled = replace(
            self,
            strategy=first.strategy,
            gamma=gamma,
            noise_guard=guard,
            balance=first.balance,
        )

        def choose(rows: int) -> Selection:
            return settled._decide(columns, rows, classes, features)

        found = _filled(choose, first, sizes, limit, int(scored.sum()))
        return replace(found, reason=first.reason, trial=first.trial)

    def _decide(
        self,
        columns: Columns,
        keep: float,
        classes: Sequence[str] | None,
        features: ArrayLike | Features | None,
    ) -> Selection:
        return decide(
            columns,
            keep,
            self.strategy,
            gamma=self.gamma,
            by=self.by,
            seed=self.seed,
            score=self.score,
            features=features,
            floor=self.floor,
            cap=self.cap,
            shares=_by_label(self.shares, classes) if self.by == "label" else self.shares,
            noise_guard=self.noise_guard,
            balance=self.balance,
            objective=self.objective,
            exceptions=Exceptions(np.asarray(self.always), np.asarray(self.never)),
        )

    def _sizes(self, table: ScoreTable, stored: Stored | None) -> tuple[NDArray[np.int64], int]:
        """Return the size (N,) of each row in what is limited, and the limit."""
        if self.keep_tokens is not None:
            if "token_count" not in table.column_names:
                raise ValueError(
                    "keep_tokens: the scores have no column token_count, which only those of a "
                    "language model have: give keep"
                )
            counts = np.nan_to_num(np.asarray(table.column("token_count"), np.float64))
            return counts.astype(np.int64), self.keep_tokens
        assert self.keep_bytes is not None
        return _bytes(stored), self.keep_bytes


def _bytes(stored: Stored | None) -> NDArray[np.int64]:
    """Return the bytes (N,) of each row."""
    if isinstance(stored, Mixture):
        return np.concatenate([_bytes(part) for part in stored.sources.values()])
    if isinstance(stored, ImageFolderSource):
        sizes = [(stored.root / path).stat().st_size for path in stored.paths]
        return np.array(sizes, np.int64)
    lines = getattr(stored, "stored", stored)
    if isinstance(lines, JsonLines):
        return line_bytes(lines.path)
    raise ValueError(
        "keep_bytes: only rows of an image folder and of JSON Lines have a size of their own: "
        "give keep"
    )


def _by_label(shares: Mapping[str, float], classes: Sequence[str] | None) -> dict[Any, float]:
    """Return shares by label, where they go by the name of a class."""
    known = {name: label for label, name in enumerate(classes or ())}
    return {known.get(name, name): share for name, share in shares.items()}


def _first_count(sizes: NDArray[np.int64], limit: int) -> int:
    if not len(sizes):
        return 1
    return int(np.clip(limit / max(1.0, sizes.mean()), 1, len(sizes)))


def _filled(
    choose: Callable[[int], Selection],
    first: Selection,
    sizes: NDArray[np.int64],
    limit: int,
    rows: int,
) -> Selection:
    """Return the selection whose rows fill a budget without exceeding it.

    Args:
        choose: number of rows -> selection.
        first: a selection near the budget.
        sizes: (N,) of each row of the table.
        limit: of their sum.
        rows: that there are to choose from.

    Raises:
        ValueError: not even one row fits.
    """
    best: Selection | None = None
    low, high, found = 0, rows + 1, first
    for _ in range(_TRIES):
        count, total = len(found.rows), int(sizes[found.rows].sum())
        if total <= limit:
            if best is None or count > len(best.rows):
                best = found
            low = max(low, count)
        else:
            high = min(high, count)
        if high - low <= 1 or _FILLED * limit <= total <= limit:
            break
        count = int(np.clip(count * limit / max(1, total), low + 1, high - 1))
        found = choose(count)
    if best is None:
        raise ValueError(f"a budget of {limit:,} is less than the chosen rows take: give more")
    return best
