"""A score table as embedding viewers open it: one Parquet file of rows with places and previews."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.table import ScoreTable
from lc_engine.reporting.run import Run
from lc_engine.reporting.scored_data import ScoredData, are_features, data_of
from lc_engine.reporting.subsets import read_subsets
from lc_engine.selection.suspicious import class_name

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from lc_engine.data.features import Features
    from lc_engine.reporting.previews import Preview

_CHUNK = 4096
# Rows from which the plane of the projection is taken; more change it little.
_FITTED = 20_000


def write_viewer_table(
    scores: ScoreTable | str | os.PathLike[str],
    data: Any = None,
    subset: Any = None,
    out: str | os.PathLike[str] = "report.parquet",
    *,
    carry: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write every row with its scores, its place in a plane, and its image or text.

    The columns: those of the scores but `path_log_probs`, `label` as a name; `x` and `y`, the two
    first principal components of the features, of scores without features `lc` and `lc_std`;
    `kept_NAME` of each selection; `image` ({"bytes": a WebP of at most 96 pixels, "path": the id},
    as `datasets` stores images) or `text`; and those of `carry`. A row without a score has no place
    by its scores, and one whose input could not be read none by its features.

    Args:
        scores: as in `lc_engine.report`, like `data`, `subset` and `carry`.
        data: see `scores`.
        subset: see `scores`.
        out: the file.
        carry: see `scores`.
        seed: of the rows from which the plane is taken.

    Raises:
        ValueError: data or subset do not belong to the scores.
        FileNotFoundError: a file that is not there.
        MissingExtraError: a package of the extra "report" is not installed.
    """
    arrow, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    folder = None if isinstance(scores, ScoreTable) else Path(scores)
    table = scores if isinstance(scores, ScoreTable) else ScoreTable.read(Path(scores))
    run = Run.of(table.metadata, folder)
    data = data_of(run) if data is None else data
    opened = None
    if data is not None and not are_features(data):
        opened = ScoredData(data, run, len(table))
    if carry and opened is None:
        raise ValueError(f"carry: name the data that have the column {carry[0]!r}")
    carried = opened.columns(carry) if opened is not None and carry else {}
    kept = read_subsets(subset, table.id_type)
    plane = _Plane(table.features(), seed) if table.has_features else None
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in table.column_names if name != "path_log_probs"]
    start = 0
    with atomic_write(out) as temporary:
        writer = None
        for piece in _chunks(table, names):
            rows = np.arange(start, start + piece.num_rows)
            start += piece.num_rows
            columns = {name: piece.column(name) for name in names}
            classes = run.classes or (None if opened is None else opened.classes)
            columns["label"] = arrow.array(
                [
                    None if label < 0 else class_name(label, classes)
                    for label in piece.column("label").to_pylist()
                ],
                arrow.string(),
            )
            place = plane.of(rows) if plane is not None else _by_scores(piece)
            missing = np.isnan(place).any(1)
            for at, axis in enumerate("xy"):
                columns[axis] = arrow.array(place[:, at].astype(np.float32), mask=missing)
            compute = require("pyarrow.compute", "table")
            for name, ids in kept.items():
                columns[f"kept_{name}"] = compute.is_in(piece.column("id"), ids)
            columns |= {
                name: arrow.array(values[rows].tolist()) for name, values in carried.items()
            }
            if opened is not None:
                columns |= _seen(opened, rows, piece, run.reads_records)
            made = arrow.table(columns)
            if writer is None:
                writer = parquet.ParquetWriter(temporary, made.schema, compression="zstd")
            writer.write_table(made)
        if writer is None:
            raise ValueError("scores: the table has no row, so there is nothing to view")
        writer.close()
    return out


def _chunks(table: ScoreTable, names: Sequence[str]) -> Any:
    for piece in table.pieces(*names):
        for start in range(0, piece.num_rows, _CHUNK):
            yield piece.slice(start, _CHUNK)


def _seen(
    opened: ScoredData, rows: NDArray[np.int64], piece: pa.Table, is_text: bool
) -> dict[str, pa.Array]:
    """Return the column of images or texts of a piece, null where there is none."""
    arrow = require("pyarrow", "table")
    ids = [str(value) for value in piece.column("id").to_pylist()]
    found: dict[int, Preview] = dict(opened.previews(rows, ids))
    shown = [found.get(row) for row in rows.tolist()]
    if is_text:
        texts = [None if one is None else one.text() for one in shown]
        return {"text": arrow.array(texts, arrow.string())}
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    images = [
        None if one is None else {"bytes": one.webp(), "path": name}
        for one, name in zip(shown, ids, strict=True)
    ]
    return {"image": arrow.array(images, kind)}


def _by_scores(piece: pa.Table) -> NDArray[np.float64]:
    ok = np.array(piece.column("status").to_pylist(), object) == OK
    columns = (piece.column(name).to_numpy() for name in ("lc", "lc_std"))
    place = np.stack([np.asarray(column, np.float64) for column in columns], 1)
    return np.where(ok[:, None], place, np.nan)


class _Plane:
    """The first two principal components of features.

    Args:
        features: (N, D), NaN for a row without any.
        seed: of the rows from which they are taken.
    """

    def __init__(self, features: Features, seed: int) -> None:
        self._features = features
        total = features.shape[0]
        rows = np.arange(total)
        if total > _FITTED:
            rows = np.sort(np.random.default_rng(seed).choice(total, _FITTED, replace=False))
        x = np.asarray(features[rows], np.float64)
        x = x[np.isfinite(x).all(1)]
        self._mean = x.mean(0) if len(x) else np.zeros(features.shape[1])
        x -= self._mean
        vectors = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :2]
        # The sign of an eigenvector is free: the largest entry is positive.
        largest = np.abs(vectors).argmax(0)
        self._axes = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the places (M, 2) of rows; NaN where a row has no features."""
        place = (np.asarray(self._features[rows], np.float64) - self._mean) @ self._axes
        return np.pad(place, ((0, 0), (0, 2 - place.shape[1])))
