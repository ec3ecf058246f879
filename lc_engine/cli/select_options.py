"""Options of `lc-engine select`, and the subset that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lc_engine.cli.choosing_options import ChoosingOptions
from lc_engine.cli.command import in_data, in_run
from lc_engine.cli.data_location import locate

if TYPE_CHECKING:
    import numpy as np

    from lc_engine.data.table import ScoreTable
    from lc_engine.pruning.choice import Choice
    from lc_engine.pruning.rows import Stored
    from lc_engine.selection.method import Method


@dataclass(frozen=True, kw_only=True)
class SelectOptions(ChoosingOptions):
    """Which rows of a score table are kept, and where they are written."""

    scores: Annotated[Path, typer.Argument(help="Folder that `lc-engine score` wrote.")]
    out: Annotated[
        Path | None, in_data(help="subset.npy or .txt for ids, .parquet for rows of the scores.")
    ] = None
    write: Annotated[
        Path | None, in_data(help="New folder for the kept rows, in the form of the data.")
    ] = None
    data: Annotated[
        list[str] | None,
        in_data(
            help="The data that were scored, for --write and for columns of theirs; as for score.",
            metavar="[NAME=]PATH",
            show_default="those that the scores' _config.json names",
        ),
    ] = None
    features: Annotated[
        Path | None,
        in_data(
            help="A .npy of features, one row per row of the scores.",
            show_default="those beside the scores, for strategies that need them",
        ),
    ] = None
    streamed: Annotated[
        bool,
        in_run(
            "--streamed",
            help="Read a table larger than memory in pieces: easy, hard, random, flexrand.",
        ),
    ] = False

    def run(self) -> tuple[int, Method, dict[str, int]]:
        """Write the subset.

        Returns:
            Rows kept, how they were chosen, and the number of rows of each status, "ok" being
            those to choose from.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
        """
        choice = self.choice()
        if self.out is None and self.write is None:
            raise ValueError("name --out for ids, or --write for the kept rows themselves")
        if self.out is not None and self.out.suffix not in _WRITERS:
            raise ValueError(f"--out {self.out} must end with {', '.join(_WRITERS)}")
        from lc_engine.data.table import ScoreTable

        self._check_out()
        table = ScoreTable.read(self.scores)
        kept, method = self._streamed(table) if self.streamed else self._in_memory(table, choice)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            _WRITERS[self.out.suffix](self.out, table, kept)
        return len(kept), method, table.status_counts()

    def _check_out(self) -> None:
        """Refuse to replace what the subset is chosen from."""
        from lc_engine.data.table_files import PART_PATTERN

        if self.out is None:
            return
        read = {path.resolve() for path in (self.scores, self.features) if path is not None}
        in_scores = self.out.parent.resolve() == self.scores.resolve()
        if self.out.resolve() in read or (in_scores and self.out.match(PART_PATTERN)):
            raise ValueError(f"--out {self.out} belongs to what is read here: name another file")

    def _in_memory(self, table: ScoreTable, choice: Choice) -> tuple[np.ndarray, Method]:
        import numpy as np

        stored, where = None, None
        known = self.by is None or self.by in table.column_names
        if self.write is not None or self.keep_bytes is not None or not known:
            stored, where = self._stored(table)
        columns = choice.columns(table, stored)
        features = None if self.features is None else _load_features(self.features)
        classes = getattr(stored, "classes", None)
        found = choice.decide(columns, stored, classes, features)
        if self.write is None or stored is None:
            return found.ids, found.method
        from lc_engine.pruning.rows import write_new_folder

        rows = found.rows
        if self.unscored == "keep":
            bad = np.flatnonzero(np.asarray(table.column("status")) != "ok")
            rows = np.union1d(rows, bad)
        write_new_folder(stored, where, rows.astype(np.int64), self.write)
        return found.ids, found.method

    def _stored(self, table: ScoreTable) -> tuple[Stored, Any]:
        """Open the data that were scored."""
        from lc_engine.data.locations import check_outside
        from lc_engine.pruning.rows import check_is_scored, open_stored
        from lc_engine.reporting.run import Run

        run = Run.of(table.metadata, self.scores)
        data = self.data or run.options.get("data")
        if data is None:
            raise ValueError("--data: name the data that were scored; no _config.json does")
        where = locate([data] if isinstance(data, str) else data)
        if self.write is not None:
            check_outside(self.write, where)
        stored = open_stored(where, texts=run.reads_records, **run.opening)
        check_is_scored(stored, table.metadata.get("data_digest"), len(table))
        return stored, where

    def _streamed(self, table: ScoreTable) -> tuple[np.ndarray, Method]:
        from lc_engine.selection.streamed.select import make_streamed_selection

        for name, given in (
            ("features", self.features is not None),
            ("noise-guard", self.noise_guard > 0),
            ("out ….parquet", self.out is not None and self.out.suffix == ".parquet"),
            ("write", self.write is not None),
            ("balance", self.balance is not None),
            ("objective", self.objective != "balanced"),
            ("keep-tokens", self.keep_tokens is not None),
            ("keep-bytes", self.keep_bytes is not None),
            ("share", self.share is not None),
            ("always-keep", self.always_keep is not None),
            ("never-keep", self.never_keep is not None),
        ):
            if given:
                raise ValueError(f"--{name} needs all rows in memory: leave out --streamed")
        assert self.keep is not None
        return make_streamed_selection(
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
    table.with_ranks().only(kept).write(path)


_WRITERS = {".npy": _write_npy, ".parquet": _write_parquet, ".txt": _write_txt}
