"""FiftyOne: scores as fields of samples, and views of the hardest and of the kept samples.

hardest = add_scores(dataset, scores, root="photos")
session.view = kept(dataset, lc.select(scores, 0.1), root="photos")
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.ids import id_of_name
from lc_engine.integrations.fields import STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.table import ScoreTable


def add_scores(
    samples: Any,
    scores: ScoreTable,
    *,
    root: str | Path | None = None,
    columns: tuple[str, ...] = ("lc", "loss", "lc_std"),
) -> Any:
    """Write scores into the fields `lc` (high = easy), `loss`, `lc_std` and `lc_status`.

    Samples that are not in the table keep their fields, so parts of a data set can be scored one
    after the other.

    Args:
        samples: a FiftyOne Dataset, or a view of one.
        scores: with ids that are indices into `samples`, sample ids, or with `root` paths.
        root: the folder that was scored: ids are the paths of the samples relative to it.
        columns: the columns of `scores` to write. A row without a score gets None.

    Returns:
        A view of the samples with a score, of earlier parts too, hardest first; by the table, if
        `columns` leaves out "lc".

    Raises:
        ValueError: an id of `scores` that matches no sample or several, or a missing column.
        MissingExtraError: FiftyOne is not installed.
    """
    sample_ids = _sample_ids(samples, scores.column("id"), root)
    status = scores.column("status")
    has_score = status == OK
    values = {
        name: [
            value if ok else None
            for value, ok in zip(scores.column(name).tolist(), has_score, strict=True)
        ]
        for name in columns
    }
    kinds = {name: scores.column(name).dtype.kind for name in columns} | {STATUS: "U"}
    _declare(samples, kinds)
    if sample_ids:
        for name, column in (values | {STATUS: status.tolist()}).items():
            by_sample = dict(zip(sample_ids, column, strict=True))
            samples.set_values(name, by_sample, key_field="id")
    if "lc" in columns:
        return samples.exists("lc").sort_by("lc")
    order = np.argsort(scores.column("lc"), kind="stable")
    return samples.select([sample_ids[i] for i in order if has_score[i]], ordered=True)


def _declare(samples: Any, kinds: Mapping[str, str]) -> None:
    """Add the fields: FiftyOne cannot infer the type of one without values, if no row has any."""
    fo = require("fiftyone", "fiftyone")
    types = {"f": fo.FloatField, "i": fo.IntField, "u": fo.IntField, "b": fo.BooleanField}
    name = samples.dataset_name if hasattr(samples, "dataset_name") else samples.name
    dataset = fo.load_dataset(name)
    for field, kind in kinds.items():
        if not dataset.has_sample_field(field):
            dataset.add_sample_field(field, types.get(kind, fo.StringField))


def kept(samples: Any, keep: ArrayLike, *, root: str | Path | None = None) -> Any:
    """Return a view of the kept samples.

    Args:
        samples: as in `add_scores`, like `root`.
        keep: ids, as `lc_engine.select` returns them.
        root: see `add_scores`.

    Raises:
        ValueError: an id that matches no sample or several.
    """
    return samples.select(_sample_ids(samples, np.asarray(keep), root))


def _sample_ids(samples: Any, ids: NDArray[Any], root: str | Path | None) -> list[str]:
    """Return the FiftyOne ids of the samples that a score table or a selection names."""
    own, files = samples.values(["id", "filepath"])
    if ids.dtype.kind in "iu":
        names: list[Any] = list(range(len(own)))
        what = "indices into the samples"
    elif root is None:
        names, what = own, "ids of samples (root= takes paths relative to a folder)"
    else:
        base = Path(root).resolve()
        names = [Path(file).resolve() for file in files]
        names = [
            id_of_name(file.relative_to(base).as_posix()) if file.is_relative_to(base) else None
            for file in names
        ]
        what = f"paths relative to root, {root}"
    known = dict(zip(names, own, strict=True))
    wanted = set(ids.tolist())
    several = [name for name, count in Counter(names).items() if count > 1 and name in wanted]
    if several:
        raise ValueError(
            f"{len(several)} ids match several samples each, the first {several[0]!r}: pass a view "
            "with one sample per file"
        )
    missing = [name for name in ids.tolist() if name not in known]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(ids)} ids match no sample, the first {missing[0]!r}: they "
            f"must be {what}"
        )
    return [known[name] for name in ids.tolist()]
