"""Score a data set: a score table out, shard by shard where there is an output folder."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from lc_engine._util.digests import config_digest
from lc_engine.data.features import STORED, FeatureFile, FeatureRecorder, features_path
from lc_engine.data.identity import check_unchanged
from lc_engine.data.label_range import labels_outside
from lc_engine.data.locations import check_outside
from lc_engine.data.protocols import ContinuesRuns, HasHeadClasses, HasMaskAccount, TakesNotes
from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.digested import digested
from lc_engine.data.wrap.mixture import decodes_rows, holds_images
from lc_engine.data.wrap.subset import whole_of
from lc_engine.data.wrap.with_ids import WithIds
from lc_engine.masking import MaskingWarning
from lc_engine.scoring.cut import cut_of
from lc_engine.scoring.oom_retry import with_fewer_rows
from lc_engine.scoring.progress import reporting
from lc_engine.scoring.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.data.batch import Source
    from lc_engine.data.open import Opening
    from lc_engine.data.protocols import Progress, RowScorer
    from lc_engine.data.run.ledger import Ledger, Shard
    from lc_engine.data.table import ScoreTable
    from lc_engine.masking import MaskAccount
    from lc_engine.scoring.run import ScoredRows

_log = logging.getLogger(__name__)

# Where the source names no batch size: rows of images, which cost a lot each, while weights are
# masked once per sub-model and batch.
BATCH_ROWS = 128
SHARD_ROWS = 1 << 16
# 1,700 images of 224 px.
CACHE_BYTES = 1 << 30


def score(
    scorer: RowScorer,
    data: Any,
    out: str | Path | None = None,
    *,
    ids: Sequence[str] | Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    shard_rows: int | None = None,
    return_path: bool = False,
    features: bool | None = None,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress | Literal[False] | None = None,
    **opening: Unpack[Opening],
) -> ScoreTable:
    """Score every row of a data set.

    A row that cannot be scored stays in the table with its status and never stops the job. A head
    that learns from the data and has not yet is fitted on them first (the scorer is not changed),
    so the data are read twice, except for rows of which what is needed fits `cache_bytes`.

    Args:
        scorer: a `Scorer` or a `CausalLMScorer`.
        data: what `lc_engine.data.open.open_source` takes.
        out: a folder. Shards of the table are written there as they are done, and a run that was
            killed continues where it was; processes that are given the same folder share the
            shards, and each returns when all are done. None keeps the table in memory.
        ids: N distinct strings or integers for the column `id`; None takes those of the data: paths
            relative to their folder, else row numbers.
        batch_size: rows that go through the model at a time; None takes what suits the data, and
            with `out` fewer of a model that takes more than about a minute for them.
            Where memory runs out the run goes on with half as many.
        num_workers: threads that decode images; None takes one per processor.
        shard_rows: rows per shard in `out`; None takes about a minute of work, by an estimate, or
            what the run was begun with.
        return_path: whether the table gets the column `path_log_probs`.
        features: whether the whole model's features are kept in `out`, as float16, for strategies
            that read them (`ScoreTable.features`). None keeps them where scoring computes them in
            any case; a run that continues does as it began.
        cache_bytes: decoded images of the first reading that are kept for the second; where the
            run has one part, rather what the sub-models made of them, which are fewer bytes.
        progress: called after each batch, and within one that takes long, as progress(phase, rows
            done, rows in all), phase "prototypes" or "scores"; one that has a method `waited` is
            told the seconds that each batch was waited for, and one with a method `note` the line
            that says what the masks reach. None prints a bar or lines on stderr
            in a terminal and in a notebook, and nothing elsewhere; False prints nothing anywhere.
        **opening: `labels`, `feature_column`, `label_column` and `form`, as in `open_source`.

    Returns:
        The table, rows in the order of the data; that of an `out` is read as it is used.

    Raises:
        ValueError: data or model do not fit, `out` holds another run or is inside
                the data, or the data change meanwhile; the text says what to do.
        OSError: a file cannot be read, again and again, or not written.
        Exception: of the model, where it fails on every row; one that it fails on has its status.

    Warns:
        MaskingWarning: few of the model's weights can be masked, a capacity is missed by more than
            0.01, or sub-models coincide.
    """
    from lc_engine.data.open import open_source

    if out is not None:
        check_outside(Path(out), data)
        if isinstance(scorer, ContinuesRuns):
            from lc_engine.data.run.ledger import MANIFEST
            from lc_engine.data.run.side_files import side_file

            scorer = scorer.continued(side_file(Path(out), MANIFEST))
    with reporting(progress) as report:
        transform = getattr(scorer, "transform", None)
        source = open_source(
            data,
            transform=transform,
            num_workers=num_workers,
            label_kind=getattr(scorer, "label_kind", "class"),
            **opening,
        )
        table = score_source(
            scorer,
            source,
            out,
            ids=None if ids is None else _checked_ids(ids, len(source)),
            batch_size=batch_size,
            shard_rows=shard_rows,
            return_path=return_path,
            features=features,
            cache_bytes=cache_bytes,
            progress=report,
        )
        _warn_of_labels(scorer, source, table)
    return table


def default_batch(source: Source) -> int:
    """Return how many rows of a source go through a model at a time, unless the caller says."""
    rows: int = getattr(whole_of(source), "batch_rows", BATCH_ROWS)
    return rows


def _tell(account: MaskAccount | None, progress: Progress | None) -> None:
    """Print what the masks reach, and warn of it where need be."""
    if account is None:
        return
    if isinstance(progress, TakesNotes):
        progress.note(account.line())
    warning = account.warning()
    if warning is not None:
        warnings.warn(warning, MaskingWarning, stacklevel=4)


def _warn_of_labels(scorer: RowScorer, source: Source, table: ScoreTable) -> None:
    """Warn if some labels are outside the head's classes, which may be true of no label alone."""
    classes = scorer.head_classes if isinstance(scorer, HasHeadClasses) else None
    if classes is None or source.classes is not None:
        return
    labels = getattr(source, "labels", None)  # of which a table keeps none below 0
    if not isinstance(labels, np.ndarray):
        labels = np.asarray(table.column("label"))
    warning = labels_outside(labels, classes)
    if warning is not None:
        _log.warning("%s", warning)


def _checked_ids(ids: Sequence[str] | Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    found = np.asarray(ids)
    if found.shape != (rows,) or found.dtype.kind not in "iuUO":
        raise ValueError(
            f"ids must be {rows} strings or integers, one per row; got shape {found.shape} of "
            f"{found.dtype}"
        )
    if len(np.unique(found)) < rows:
        raise ValueError("ids must be distinct, but some rows have the same")
    return found.astype(np.int64) if found.dtype.kind in "iu" else found.astype(str)


def score_source(
    scorer: RowScorer,
    source: Source,
    out: str | Path | None,
    *,
    ids: np.ndarray | None,
    batch_size: int | None,
    shard_rows: int | None,
    return_path: bool,
    features: bool | None,
    cache_bytes: int,
    progress: Progress | None,
    one_reading: bool = True,
) -> ScoreTable:
    """Score every row of an opened source; see `score`.

    Args:
        scorer: what scores.
        source: the rows.
        out: as in `score`.
        ids: N checked ids, or None.
        batch_size: as in `score`.
        shard_rows: likewise.
        return_path: likewise.
        features: likewise.
        cache_bytes: likewise.
        progress: a callback, or None.
        one_reading: whether all sub-models may run while a head learns, where that loses nothing.
    """
    with digested(source) as rows:
        scorer.check(source)
        account = scorer.mask_account if isinstance(scorer, HasMaskAccount) else None
        whole = whole_of(source)
        at_a_time = default_batch(source) if batch_size is None else batch_size

        def begin(
            keep_in: Path | None, recorder: FeatureRecorder | None = None, *, one_part: bool = True
        ) -> Run:
            named: Source = rows if ids is None else WithIds(rows, ids)
            # Of several parts the first would wait for the forwards of all.
            at_once = one_reading and one_part and holds_images(source)
            if decodes_rows(source) or at_once:
                named = CachedSource(
                    named, cache_bytes, keeps_inputs=decodes_rows(source), keeps_results=at_once
                )
            ready = with_fewer_rows(
                lambda rows: scorer.fitted(named, keep_in, rows, progress, recorder), at_a_time
            )
            if isinstance(named, CachedSource):
                named.freeze()
            return Run(ready, named, ready.describe(), at_a_time, return_path, progress)

        if out is None:
            if features:
                raise ValueError("features are kept in a folder: name one with out")
            _tell(account, progress)
            run = begin(None)
            found = run.rows(0, len(source))  # which checks that they are as they were
            run.metadata["data_digest"] = rows.digest()
            return found.table()
        from lc_engine.data.run.ledger import Ledger

        most_rows = getattr(whole, "shard_rows", SHARD_ROWS)
        cut = cut_of(scorer, source, at_a_time, most_rows, batch_is_given=batch_size is not None)
        manifest = scorer.describe() | {
            "data_digest": rows.digest(),
            "data": source.describe(),
            "path_log_probs": return_path,
            "lc_engine": version("lc_engine"),
        }
        if keeps_features(scorer, Path(out), features):
            manifest["features"] = STORED
        if cut.batch_rows < at_a_time:
            manifest["batch_rows"] = cut.batch_rows
        # A run that was begun with another number of threads keeps its cut.
        chosen = ["batch_rows"] if shard_rows is not None else ["batch_rows", "shard_rows"]
        if ids is not None:
            manifest["ids_digest"] = config_digest({"ids": ids.tolist()})
        recorded = None if account is None else account.recorded()
        part_rows = cut.part_rows if shard_rows is None else shard_rows
        ledger = Ledger(out, manifest, len(source), part_rows, recorded, chosen)
        _tell(account, progress)  # of a run that goes ahead: a refusal is one line
        if batch_size is None:
            at_a_time = ledger.manifest.get("batch_rows", at_a_time)
        recorder = None
        if "features" in manifest:
            parts = [(shard.path, len(shard)) for shard in ledger.shards]
            recorder = FeatureRecorder(parts, lambda rows: check_unchanged(source, rows))
        _work_off(ledger, begin, recorder)
        return ledger.table()


def keeps_features(scorer: RowScorer, out: Path, asked: bool | None) -> bool:
    """Return whether a run keeps features: as asked, as it began, or where they cost no forward."""
    if asked is not None:
        return asked
    from lc_engine.data.run.ledger import manifest_of

    begun = manifest_of(out)
    if begun is not None:
        return "features" in begun
    forwards = scorer.features_forwards()
    if forwards:
        _log.info(
            "features are not kept, since the path of %d points does not hold the whole model: "
            "features=True (--features) keeps them, for one more forward of each row",
            len(scorer.path),
        )
    return forwards == 0


def _work_off(
    ledger: Ledger,
    begin: Callable[..., Run],
    recorder: FeatureRecorder | None,
) -> None:
    """Score this process's share of the shards; one is written while the next is scored."""
    run: Run | None = None
    writing: Future[None] | None = None
    with (
        ledger.work() as shards,  # leases its shards until the writer below has ended
        ExitStack() as unfinished,
        ThreadPoolExecutor(1, thread_name_prefix="lc-write") as writer,
    ):
        for shard in shards:
            if run is None:
                with closing(recorder) if recorder is not None else nullcontext():
                    run = begin(ledger.out_dir, recorder, one_part=len(ledger.shards) == 1)
                run.metadata["data_digest"] = ledger.manifest["data_digest"]
                run.done = ledger.rows_done()
            features = None
            if not ledger.has_features(shard):
                features = FeatureFile(features_path(shard.path), len(shard), len(run.source))
                unfinished.callback(features.discard)
            rows = run.rows(shard.start, shard.stop, features)
            if writing is not None:
                writing.result()
            writing = writer.submit(_commit, ledger, shard, rows, features)
        if writing is not None:
            writing.result()
    if run is not None:  # of parts that were written before the data changed, the user should know
        check_unchanged(run.source)


def _commit(ledger: Ledger, shard: Shard, rows: ScoredRows, features: FeatureFile | None) -> None:
    ledger.commit(shard, rows.table(), features)
