"""Options of `lc-engine select`, and the subset that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lc_engine.cli.choices import Strategy
from lc_engine.cli.command import in_data, in_run, in_selection

if TYPE_CHECKING:
    import numpy as np

    from lc_engine.data.table import ScoreTable


def _keep(text: str) -> float:
    return int(text) if text.strip().isdigit() else _number(text)


def _gamma(text: str) -> float | Literal["auto"]:
    return "auto" if text == "auto" else _number(text)


def _by(text: str) -> str | None:
    return None if text == "none" else text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """Which rows of a score table are kept, and where they are written."""

    scores: Annotated[Path, typer.Argument(help="Folder that `lc-engine score` wrote.")]
    out: Annotated[
        Path, in_data(help="subset.npy or .txt for ids, .parquet for rows of the score table.")
    ]
    features: Annotated[
        Path | None, in_data(help="A .npy of features, one row per row of the scores.")
    ] = None
    keep: Annotated[
        float,
        in_selection(
            help="0.1 is 10 %, 5000 is 5,000 rows; 1.0 is everything, 1 is one row.",
            parser=_keep,
            metavar="FRACTION|ROWS",
        ),
    ]
    strategy: Annotated[Strategy, in_selection(help="How rows are chosen.")] = "flexrand"
    gamma: Annotated[
        float | Literal["auto"],
        in_selection(
            help="FlexRand's split between easy and hard, in [0, 1].",
            parser=_gamma,
            metavar="NUMBER|auto",
        ),
    ] = "auto"
    by: Annotated[
        str | None,
        in_selection(
            help="Column whose values share the budget.", parser=_by, metavar="COLUMN|none"
        ),
    ] = "label"
    score: Annotated[
        str,
        in_selection(
            help="Column of numbers that tells easy from hard: loss, lc, ifd, margin, …",
            metavar="COLUMN",
        ),
    ] = "loss"
    floor: Annotated[int | None, in_selection(min=0, help="Least rows of each group.")] = None
    cap: Annotated[int | None, in_selection(min=0, help="Most rows of each group.")] = None
    noise_guard: Annotated[
        float, in_selection(help="Share of each group to set aside first: likely wrong labels.")
    ] = 0.0
    seed: Annotated[int, in_selection(min=0, help="Seed of every draw.")] = 0
    streamed: Annotated[
        bool,
        in_run(
            "--streamed",
            help="Read a table larger than memory in pieces: easy, hard, random, flexrand.",
        ),
    ] = False

    def run(self) -> tuple[int, int]:
        """Write the subset.

        Returns:
            Rows kept, and rows that there were to choose from.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
        """
        if self.out.suffix not in _WRITERS:
            raise ValueError(f"--out {self.out} must end with {', '.join(_WRITERS)}")
        from lc_engine.data.table import ScoreTable

        self._check_out()
        table = ScoreTable.read(self.scores)
        kept = self._streamed(table) if self.streamed else self._in_memory(table)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[self.out.suffix](self.out, table, kept)
        return len(kept), table.status_counts()["ok"]

    def _check_out(self) -> None:
        """Refuse to replace what the subset is chosen from."""
        from lc_engine.data.table_files import PART_PATTERN

        read = {path.resolve() for path in (self.scores, self.features) if path is not None}
        in_scores = self.out.parent.resolve() == self.scores.resolve()
        if self.out.resolve() in read or (in_scores and self.out.match(PART_PATTERN)):
            raise ValueError(f"--out {self.out} belongs to what is read here: name another file")

    def _in_memory(self, table: ScoreTable) -> np.ndarray:
        from lc_engine.selection import select

        return select(
            table,
            self.keep,
            self.strategy,
            gamma=self.gamma,
            by=self.by,
            seed=self.seed,
            features=None if self.features is None else _load_features(self.features),
            score=self.score,
            floor=self.floor,
            cap=self.cap,
            noise_guard=self.noise_guard,
        )

    def _streamed(self, table: ScoreTable) -> np.ndarray:
        from lc_engine.selection.streamed import select_streamed

        for name, given in (
            ("features", self.features is not None),
            ("noise-guard", self.noise_guard > 0),
            ("out ….parquet", self.out.suffix == ".parquet"),
        ):
            if given:
                raise ValueError(f"--{name} needs all rows in memory: leave out --streamed")
        return select_streamed(
            table,
            self.keep,
            self.strategy,
            gamma=self.gamma,
            by=self.by,
            seed=self.seed,
            score=self.score,
            floor=self.floor,
            cap=self.cap,
        )


def _load_features(path: Path) -> np.ndarray:
    from lc_engine.data.readers.arrays import check_features, open_npy

    return check_features(str(path), open_npy(path))


def _write_npy(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    from lc_engine._util.atomic_write import atomic_write_npy

    atomic_write_npy(path, kept.astype(str) if kept.dtype == object else kept)


def _write_txt(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    from lc_engine._util.atomic_write import atomic_write_text
    from lc_engine.data.ids import to_id_lines

    atomic_write_text(path, to_id_lines(kept))


def _write_parquet(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    table.only(kept).write(path)


_WRITERS = {".npy": _write_npy, ".parquet": _write_parquet, ".txt": _write_txt}
