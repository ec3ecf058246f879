"""The score table: one row per sample, as Arrow in memory and Parquet on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.differences import differences
from lc_engine._util.extras import require
from lc_engine.data import batch
from lc_engine.data.ranks import RANK, SOURCE, Groups, ranks
from lc_engine.data.sparse_texts import SparseTexts
from lc_engine.data.table_files import (
    METADATA_KEY,
    VERSION,
    TableFiles,
    finished_parts,
    table_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

    from lc_engine.data.features import Features

EASY = "high = easy"
HARD = "high = hard"
# Of the columns that rank rows; a table's metadata names those that it has.
DIRECTION = {
    "lc": EASY,
    "loss": HARD,
    "lc_chosen": EASY,
    "loss_chosen": HARD,
    "lc_rejected": EASY,
    "loss_rejected": HARD,
    "margin": EASY,
    "perplexity": HARD,
    "perplexity_rejected": HARD,
    "entropy": HARD,
    "entropy_rejected": HARD,
    "ifd": HARD,
    "ifd_rejected": HARD,
    "ifd_ppl": HARD,
    "ifd_ppl_rejected": HARD,
    "mean_delta": HARD,
    "mean_delta_rejected": HARD,
    RANK: EASY,
}

_FLOATS = ("lc", "loss", "lc_std")
_REPEATING = ("label", SOURCE, "status", "detail")  # other columns rarely repeat values
_GUESS = 0.1  # of 1/classes: nearer to it, lc says little to the eye


class ScoreTable:
    """Scores of a data set, with the digests of everything that they depend on.

    Columns: `id` (int64 or string), `label` int64, `lc`, `loss`, `lc_std` float32,
    `path_log_probs` list of K float32 (optional), `status`, `detail` string. A row whose status is
    not "ok" has no scores: null in Arrow, NaN from `column`.

    Args:
        table: a table with those columns whose schema carries the metadata (see `from_arrays`), or
            files of one (see `read`).

    Raises:
        ValueError: a column is missing, or lc_engine did not write the table.
    """

    def __init__(self, table: pa.Table | TableFiles) -> None:
        self.metadata: dict[str, Any] = table_metadata(table.schema)
        self._stored = table
        self._files = table if isinstance(table, TableFiles) else None

    @property
    def table(self) -> pa.Table:
        """All rows, as Arrow; those of files are read at the first use, and kept."""
        if isinstance(self._stored, TableFiles):
            self._stored = self._stored.select(self.column_names)
        return self._stored

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self._stored.schema.names)

    @property
    def id_type(self) -> pa.DataType:
        """Type of the ids: int64 or string."""
        return self._stored.schema.field("id").type

    @classmethod
    def from_arrays(
        cls,
        *,
        ids: np.ndarray,
        labels: np.ndarray,
        lc: np.ndarray,
        loss: np.ndarray,
        lc_std: np.ndarray,
        status: Sequence[str],
        detail: Sequence[str],
        metadata: Mapping[str, Any],
        sources: np.ndarray | None = None,
        path_log_probs: np.ndarray | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> ScoreTable:
        """Return a table of N rows.

        Args:
            ids: (N,) int64 or strings.
            labels: (N,) int64.
            lc: (N,) float32, high = easy; not read where the status is not "ok". `loss` (high =
                hard) and `lc_std` alike.
            loss: see `lc`.
            lc_std: see `lc`.
            status: N of "ok", "unreadable", "bad_label", "non_finite", …
            detail: N sentences, "" where the status is "ok".
            metadata: model_digest, masking, path, head, data_digest, dtype; the version and the
                directions of the scores are added.
            sources: (N,) names of the rows' sources, for the column `source`, or None.
            path_log_probs: (N, K) float32 log p_k, or None.
            extra: further columns by name, each (N,) numbers, null where the status is not "ok".
        """
        pa = require("pyarrow", "table")
        status, detail = SparseTexts.of(status, batch.OK), SparseTexts.of(detail, "")
        bad = np.zeros(len(status), dtype=bool)
        bad[list(status.others)] = True
        numbered = ids.dtype.kind == "i"
        columns = {
            "id": pa.array(ids, pa.int64()) if numbered else pa.array(ids.tolist(), pa.string()),
            "label": pa.array(labels, pa.int64()),
        }
        if sources is not None:
            columns[SOURCE] = pa.array(sources.tolist(), pa.string())
        for name, values in zip(_FLOATS, (lc, loss, lc_std), strict=True):
            columns[name] = pa.array(np.asarray(values, np.float32), pa.float32(), mask=bad)
        if path_log_probs is not None:
            columns["path_log_probs"] = _lists(path_log_probs, bad)
        for name, values in (extra or {}).items():
            columns[name] = pa.array(values, mask=bad)
        columns["status"], columns["detail"] = _texts(status), _texts(detail)
        direction = {name: DIRECTION[name] for name in columns if name in DIRECTION}
        described = {"version": VERSION, "direction": direction, **metadata}
        return cls(
            pa.table(columns).replace_schema_metadata(
                {METADATA_KEY: json.dumps(described, sort_keys=True)}
            )
        )

    @classmethod
    def read(cls, path: str | Path) -> ScoreTable:
        """Open a Parquet file, or the folder of a finished run; columns are read when asked for.

        Raises:
            FileNotFoundError: the path does not exist.
            ValueError: a folder without parts, with some of its parts missing, or with parts of
                different runs; a file that is not a score table.
        """
        return cls(TableFiles(finished_parts(Path(path))))

    @classmethod
    def concat(cls, tables: Sequence[ScoreTable]) -> ScoreTable:
        """Return the rows of tables of one run, in order.

        Raises:
            ValueError: no table, or tables whose model, masking, path, head, data or dtype differ;
                the text names the difference.
        """
        if not tables:
            raise ValueError("tables must hold at least one score table")
        pa = require("pyarrow", "table")
        for i, other in enumerate(tables[1:], 1):
            difference = differences(tables[0].metadata, other.metadata)
            if difference:
                raise ValueError(f"tables[0] and tables[{i}] are of different runs: {difference}")
            if not other.table.schema.equals(tables[0].table.schema):
                raise ValueError(
                    f"tables[0] and tables[{i}] have different columns: "
                    f"{_columns(tables[0].table)} -> {_columns(other.table)}"
                )
        return cls(pa.concat_tables([t.table for t in tables]))

    def write(self, path: str | Path) -> None:
        """Write one Parquet file (zstd, with page checksums); the same rows give the same bytes.

        The write is atomic: if it fails, the file stays as it was.
        """
        parquet = require("pyarrow.parquet", "table")
        numbered = str(self.table.schema.field("id").type) == "int64"
        with atomic_write(Path(path)) as temporary:
            parquet.write_table(
                self.table,
                temporary,
                compression="zstd",
                use_dictionary=[*_REPEATING],
                column_encoding={"id": "DELTA_BINARY_PACKED"} if numbered else None,
                write_page_checksum=True,
            )

    def __len__(self) -> int:
        """Return the number of rows, scored or not."""
        return int(self._stored.num_rows)

    def column(self, name: str) -> np.ndarray:
        """Return one column: (N,), or (N, K) for `path_log_probs`; NaN where there is no score.

        Raises:
            ValueError: an unknown column; the text lists the columns.
        """
        if name not in self.column_names:
            raise ValueError(
                f"the score table has no column {name!r}; it has {', '.join(self.column_names)}"
            )
        column = self._stored.select([name]).column(name).combine_chunks()
        if name != "path_log_probs":
            return np.asarray(column.to_numpy(zero_copy_only=False))
        valid = np.asarray(column.is_valid())
        values = column.flatten().to_numpy(zero_copy_only=False)
        scored = int(valid.sum())
        path = np.full((len(self), len(values) // max(scored, 1)), np.nan, dtype=np.float32)
        path[valid] = values.reshape(scored, -1) if scored else 0
        return path

    @property
    def ranked_by(self) -> str:
        """The column that `ranks` goes by: "ifd" where there is one, else "loss".

        IFD compares an answer with and without its question, so one to another question stands out.
        """
        return "ifd" if "ifd" in self.column_names else "loss"

    def ranks(self) -> np.ndarray:
        """Return the rank (N,) of each row in its group; see `lc_engine.data.ranks`.

        0 is the hardest row of its class (and source), 1 the easiest; float32, NaN where there is
        no score. It can be read where scores lie close together, as those of an inverse distance
        do. Of a table that holds ranks already, as some rows of another one do, it is those.
        """
        if RANK in self.column_names:
            return self.column(RANK)
        groups = Groups()
        names = Groups.columns(self.column_names)
        numbers = [groups.numbers(piece) for piece in self.pieces(*names)]
        hardness = np.asarray(self.column(self.ranked_by), np.float32)
        return ranks(hardness, np.concatenate(numbers) if numbers else np.empty(0, np.intp))

    def lc_note(self) -> str | None:
        """Return a sentence if `lc` is that of a guess in every row, to within a tenth; else None.

        So it is under the inverse distance of many classes; ranks and differences stay meaningful.
        """
        compute = require("pyarrow.compute", "table")
        labels, low, high = set[int](), np.inf, -np.inf
        for piece in self.pieces("label", "lc"):
            labels.update(piece.column("label").unique().to_pylist())
            found = compute.min_max(piece.column("lc")).as_py()
            if found["min"] is not None:
                low, high = min(low, found["min"]), max(high, found["max"])
        classes = len(labels - {batch.NO_LABEL})
        away = max(high - 1 / max(classes, 1), 1 / max(classes, 1) - low)
        if classes < 2 or not 0 <= away <= _GUESS / classes:
            return None
        return (
            f"lc is within {away:.2g} of 1/{classes}, a guess among {classes} classes, in every "
            "row: read the column rank (ScoreTable.ranks) instead of its values"
        )

    def with_ranks(self) -> ScoreTable:
        """Return the table with `ranks` as its column `rank`, in memory."""
        if RANK in self.column_names:
            return self
        pa = require("pyarrow", "table")
        found = self.ranks()
        return ScoreTable(self.table.append_column(RANK, pa.array(found, mask=np.isnan(found))))

    @property
    def has_features(self) -> bool:
        """Whether the run kept the whole model's features beside the table."""
        return self._files is not None and self._files.has_features

    def features(self) -> Features:
        """Open the whole model's features (N, D) that the run kept, a row per row of the table.

        They are what the model's classifier reads, of a language model the mean over the positions
        that predict the response; float16, read from disk as they are used. A row that could not be
        read holds NaN.

        Raises:
            ValueError: the run kept none, or a file of them is missing.
        """
        if self._files is None or not self.has_features:
            raise ValueError(
                "the scores have no features beside them: score with features=True (--features) "
                "into another folder, or pass features of your own"
            )
        return self._files.features()

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows, with their `ranks`, as a data frame; NaN where there is no score.

        `path_log_probs` holds an array of K float32 per row, or None. The run's metadata is in
        `attrs`.
        """
        require("pandas", "report")
        ranked = self.with_ranks().table
        frame: pd.DataFrame = ranked.replace_schema_metadata().to_pandas()
        frame.attrs = dict(self.metadata)
        return frame

    def bad_rows(self, limit: int) -> list[tuple[Any, str, str]]:
        """Return (id, status, detail) of the first rows whose status is not "ok"."""
        rows: list[tuple[Any, str, str]] = []
        for chunk in self.pieces("id", "status", "detail"):
            if len(rows) < limit:
                compute = require("pyarrow.compute", "table")
                bad = chunk.filter(compute.not_equal(chunk.column("status"), batch.OK))
                rows += [tuple(row.values()) for row in bad.slice(0, limit).to_pylist()]
        return rows[:limit]

    def pieces(self, *names: str) -> Iterator[pa.Table]:
        """Return some columns, a piece of the table at a time."""
        if isinstance(self._stored, TableFiles):
            yield from self._stored.chunks(list(names))
        else:
            yield self._stored.select(list(names))

    def only(self, ids: np.ndarray) -> ScoreTable:
        """Return the rows with these ids, in the order of the table."""
        pa, compute = require("pyarrow", "table"), require("pyarrow.compute", "table")
        wanted = pa.array(ids.tolist(), self.table.schema.field("id").type)
        return ScoreTable(self.table.filter(compute.is_in(self.table.column("id"), wanted)))

    def status_counts(self) -> dict[str, int]:
        """Return how many rows have each status, "ok" first."""
        counts: dict[str, int] = {}
        for chunk in self.pieces("status"):
            for pair in chunk.column("status").value_counts().to_pylist():
                counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
        return {batch.OK: counts.pop(batch.OK, 0), **counts}


def _texts(texts: SparseTexts) -> pa.Array:
    pa = require("pyarrow", "table")
    if texts.others:
        return pa.array(list(texts), pa.string())
    return pa.repeat(pa.scalar(texts.default, pa.string()), len(texts))


def _lists(rows: np.ndarray, bad: np.ndarray) -> pa.Array:
    """Return a list column of (N, K) values, null where `bad`."""
    pa = require("pyarrow", "table")
    lengths = np.where(bad, 0, rows.shape[1])
    # A null offset marks a null list, which holds no values.
    offsets = pa.array(
        np.concatenate([[0], np.cumsum(lengths)]), pa.int32(), mask=np.append(bad, False)
    )
    return pa.ListArray.from_arrays(
        offsets, pa.array(np.ascontiguousarray(rows[~bad], np.float32).ravel(), pa.float32())
    )


def _columns(table: pa.Table) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in table.schema)
