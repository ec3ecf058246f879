"""prune: score, select, and write what is kept in the form of the data."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from lc_engine._util.atomic_write import atomic_write, atomic_write_npy, atomic_write_text
from lc_engine._util.extras import MissingExtraError, require
from lc_engine.data.batch import OK
from lc_engine.data.unscored import first_reasons
from lc_engine.data.wrap.mixture import has_sources
from lc_engine.pruning.choice import Choice
from lc_engine.pruning.folder import DATA, SCORES, SELECTION, at_work_in, check_outside_of, staged
from lc_engine.pruning.reasons import rows_table, suspicious_csv
from lc_engine.pruning.rows import open_stored, write_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.open import Opening
    from lc_engine.data.protocols import Progress, RowScorer
    from lc_engine.data.table import ScoreTable
    from lc_engine.pruning.rows import Stored
    from lc_engine.selection.auto_gamma.cross_validation import Objective
    from lc_engine.selection.budget import Bound
    from lc_engine.selection.decide import Selection

_log = logging.getLogger(__name__)
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned data set.

    Attributes:
        folder: that holds it.
        data: the kept rows, in the form of the data.
        ids: (n,) of the kept rows, in the order of the data.
        positions: (n,) their row numbers, ascending, as `torch.utils.data.Subset` takes them.
        scores: of all rows.
        selection: the content of `selection.json`.
    """

    folder: Path
    data: Path
    ids: NDArray[Any]
    positions: NDArray[np.int64]
    scores: ScoreTable
    selection: dict[str, Any]


def prune(
    scorer: RowScorer,
    data: Any,
    keep: float | None = None,
    out: str | os.PathLike[str] = "pruned",
    *,
    keep_tokens: int | None = None,
    keep_bytes: int | None = None,
    strategy: str = "auto",
    gamma: float | Literal["auto"] = "auto",
    by: str | None = "label",
    carry: Sequence[str] = (),
    seed: int = 0,
    score: str = "loss",
    floor: Bound = None,
    cap: Bound = None,
    shares: Mapping[str, float] | None = None,
    noise_guard: float = 0.0,
    balance: float | None = None,
    objective: Objective = "balanced",
    always_keep: ArrayLike = (),
    never_keep: ArrayLike = (),
    unscored: Literal["drop", "keep"] = "drop",
    ids: Sequence[str] | Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    shard_rows: int | None = None,
    progress: Progress | Literal[False] | None = None,
    **opening: Unpack[Opening],
) -> Pruned:
    """Score a data set, choose rows, and write them in the form of the data.

    `out` then holds `data/`, `selection.json` (what was chosen and why), `rows.parquet` (every row:
    kept or dropped, its scores and a reason), `positions.npy`, `suspicious.csv`, `report.html` and
    `scores/`. A run that was stopped continues; one with another budget scores nothing again. Until
    all of it is there, `out` holds a file `UNFINISHED`.

    Args:
        scorer: a `Scorer` or a `CausalLMScorer`. With the path `LearningPath.explicit([1.0])` only
            the whole model is run, which selects as well as a longer path; see docs/prune.md.
        data: a path of what `score` takes, or a `datasets.Dataset`; a mapping of names to several
            of them, which get the column `source` and a folder each in `data/`.
        keep: a float in (0, 1] is a fraction of the scored rows, an int a count.
        out: the folder.
        keep_tokens: instead of `keep`, the most response tokens to keep, of a language model's
            scores.
        keep_bytes: likewise the most bytes, of an image folder or JSON Lines.
        strategy: as in `select`: "auto" tries them out on the features.
        gamma: as in `select`.
        by: the column whose values share the budget: of the scores, or of the data.
        carry: columns of the data for `rows.parquet`.
        seed: of every draw.
        score: as in `select`.
        floor: as in `select`.
        cap: as in `select`.
        shares: {value of `by`: share of the budget}; the other groups share the rest.
        noise_guard: as in `select`.
        balance: as in `select`.
        objective: as in `select`.
        always_keep: ids to keep in any case; they count towards the budget.
        never_keep: ids to leave out.
        unscored: "keep" writes the rows without a score too, beside the budget.
        ids: as in `lc_engine.score`, like the arguments that follow.
        batch_size: rows that go through the model at a time.
        num_workers: threads that decode images.
        shard_rows: rows per part of the scores.
        progress: see `lc_engine.score`.
        **opening: `labels`, `feature_column`, `label_column` and `form`, as in `open_source`.

    Raises:
        ValueError: data, model or arguments do not fit, or `out` holds something else; the text
            says what to do.
        OSError: the disk is full; earlier results stay.
    """
    from lc_engine.data.open import open_source
    from lc_engine.data.readers.hub import is_hub_name, load_hub
    from lc_engine.scoring.score import score as score_rows

    choice = Choice(
        keep=keep,
        keep_tokens=keep_tokens,
        keep_bytes=keep_bytes,
        strategy=strategy,
        gamma=gamma,
        by=by,
        carry=tuple(carry),
        seed=seed,
        score=score,
        floor=floor,
        cap=cap,
        shares=dict(shares or {}),
        noise_guard=noise_guard,
        balance=balance,
        objective=objective,
        always=always_keep,
        never=never_keep,
        unscored=unscored,
    )
    choice.check()
    out = Path(out)
    if has_sources(data):
        data = {name: load_hub(one) if is_hub_name(one) else one for name, one in data.items()}
    elif is_hub_name(data):
        data = load_hub(data)
    check_outside_of(out, data)
    if getattr(scorer, "ifd", None) is False:
        choice.warn_without_ifd()
    with at_work_in(out):
        transform = getattr(scorer, "transform", None)
        source = open_source(
            data,
            transform=transform,
            num_workers=num_workers,
            label_kind=getattr(scorer, "label_kind", "class"),
            **opening,
        )
        choice.check_rows(len(source))
        table = score_rows(
            scorer,
            source,
            out / SCORES,
            ids=ids,
            batch_size=batch_size,
            shard_rows=shard_rows,
            features=keeps_features(scorer),
            progress=progress,
        )
        stored = open_stored(source, texts=False)
        return write_pruned(table, stored, data, out, choice, command=None)


def keeps_features(scorer: RowScorer) -> bool | None:
    """Return what to ask `score` for: rows that are features are kept too, to select by."""
    return True if scorer.features_forwards() is None else None


def write_pruned(
    table: ScoreTable, stored: Stored, data: Any, out: Path, choice: Choice, *, command: str | None
) -> Pruned:
    """Choose rows of scored data and write them, with the reasons; `at_work_in` holds the folder.

    Args:
        table: the scores of all rows.
        stored: the rows.
        data: what was opened.
        out: the folder.
        choice: of the rows.
        command: that repeats all of it, or None.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    classes = getattr(stored, "classes", None)
    columns = choice.columns(table, stored)
    features = table.features() if table.has_features else None
    found = choice.decide(columns, stored, classes, features)
    scored = np.asarray(table.column("status")) == OK
    kept = found.rows.astype(np.int64)
    if choice.unscored == "keep":
        kept = np.union1d(kept, np.flatnonzero(~scored))
    _say_unscored(table, choice)
    _say_lost_classes(found, classes, choice)
    with staged(out) as new:
        written = write_rows(stored, data, kept, new / DATA)
        atomic_write_npy(new / "positions.npy", kept)
        rows = rows_table(columns, found, kept, choice, classes)
        _write_parquet(rows, new / "rows.parquet")
        atomic_write_text(new / "suspicious.csv", suspicious_csv(table, rows, classes))
        ids = np.asarray(table.column("id"))[kept]
        _report(
            out / SCORES,
            data,
            {str(found.method): ids},
            new / "report.html",
            title=out.name,
            carry=[*columns.others],
            trial=found.trial,
        )
        described = _description(table, found, choice, data, written, len(kept), command)
        atomic_write_text(new / SELECTION, _json(described))
    return Pruned(out, out / DATA, ids, kept, table, described)


def _description(
    table: ScoreTable,
    found: Selection,
    choice: Choice,
    data: Any,
    written: dict[str, Any],
    kept: int,
    command: str | None,
) -> dict[str, Any]:
    counts = table.status_counts()
    metadata = table.metadata
    path = metadata.get("path", {})
    alone = path.get("capacities") == [1.0] or path.get("capacities") == (1.0,)
    versions = {name: version(name) for name in ("lc_engine", "torch", "numpy")}
    arguments = asdict(choice)
    for name in ("always", "never"):
        arguments[name] = np.asarray(arguments[name]).tolist()
    return {
        "version": _VERSION,
        "data": _location(data),
        "form": written,
        "rows": {
            "in": len(table),
            "scored": counts[OK],
            "unscored": {name: count for name, count in counts.items() if name != OK},
            "unscored_rows_are": "kept" if choice.unscored == "keep" else "dropped",
            "kept": kept,
        },
        "strategy": found.strategy,
        "gamma": found.gamma,
        "method": found.method.name,
        "noise_guard": found.noise_guard,
        "balance": found.balance,
        "reason": found.reason,
        "trial": found.trial,
        "seed": choice.seed,
        "by": choice.by,
        "groups": found.groups(),
        "path": path,
        "path_reason": (
            "the whole model alone: sub-models did not select better (docs/selection.md)"
            if alone
            else "as asked"
        ),
        "lc_note": table.lc_note(),
        "model": metadata.get("model"),
        "model_digest": metadata.get("model_digest"),
        "data_digest": metadata.get("data_digest"),
        "versions": versions | {"python": platform.python_version()},
        "arguments": arguments,
        "command": command,
    }


def _location(data: Any) -> Any:
    if has_sources(data):
        return {name: _location(one) for name, one in data.items()}
    return str(Path(data).resolve()) if isinstance(data, str | Path) else None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def _write_parquet(rows: Any, path: Path) -> None:
    with atomic_write(path) as temporary:
        require("pyarrow.parquet", "table").write_table(rows, temporary, compression="zstd")


def _report(scores: Path, data: Any, kept: dict[str, NDArray[Any]], out: Path, **more: Any) -> None:
    from lc_engine.reporting.page import report

    try:
        report(scores, data, kept, out, **more)
    except MissingExtraError as error:
        _log.warning("report.html is left out: %s", error)


def _say_unscored(table: ScoreTable, choice: Choice) -> None:
    bad = len(table) - table.status_counts()[OK]
    if bad:
        _log.warning(
            "%s of %s rows have no score and are %s:\n%s",
            f"{bad:,}",
            f"{len(table):,}",
            "kept beside the budget" if choice.unscored == "keep" else "dropped",
            "\n".join(first_reasons(table)),
        )


def _say_lost_classes(found: Selection, classes: Sequence[str] | None, choice: Choice) -> None:
    """Warn of classes without a kept row: readers of folders number the classes that they find."""
    if choice.by != "label" or classes is None:
        return
    lost = [group["group"] for group in found.groups() if not group["kept"]]
    if lost:
        names = ", ".join(classes[label] for label in lost[:5] if 0 <= label < len(classes))
        _log.warning(
            "%d classes keep no row (%s): a reader that numbers the classes it finds gives the "
            "others new numbers",
            len(lost),
            names,
        )
