"""data-juicer: two operators that its recipes find once lc_engine is installed.

    process:
      - lc_score_filter: {model: path/to/model, batch_size: 256}
      - lc_select_pipeline: {keep: 0.1, gamma: 0.5, id_key: id}

The entry point `data_juicer.ops` names this module, which nothing else imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.integrations.fields import DIGEST, FIELDS, STATUS, score_fields
from lc_engine.integrations.texts import TextScorer
from lc_engine.selection import select

if TYPE_CHECKING:
    from numpy.typing import NDArray

_base: Any = require("data_juicer.ops.base_op", "data-juicer")
_Fields: Any = require("data_juicer.utils.constant", "data-juicer").Fields

_NO_SCORES = "samples have no scores: put lc_score_filter before lc_select_pipeline in the recipe"


@_base.OPERATORS.register_module("lc_score_filter")
class LCScoreFilter(_base.Filter):  # type: ignore[misc]
    """Adds `lc` (high = easy), `loss` (high = hard) and `lc_status` to the stats of each sample.

    Scores that are there are kept if they are of the same model, path and text, which `lc_digest`
    identifies; else the sample is scored again, and the scores of this filter replace the others.

    Samples are instruction rows: data-juicer's `query` and `response`, or Alpaca, ShareGPT,
    `messages` or prompt and completion. A sample that cannot be scored is kept, with the reason as
    its `lc_status`.

    Args:
        model: of `TextScorer`, like `path`, `form` and `dtype`.
        path: the sub-models.
        form: of the rows.
        dtype: of the weights.
        min_score: lowest lc to keep.
        max_score: highest lc to keep.
        **kwargs: common to data-juicer's operators, such as batch_size, num_proc, num_gpus.
    """

    _batched_op = True
    _accelerator = "cuda"

    def __init__(
        self,
        model: str = "",
        path: str | None = None,
        form: str | None = None,
        dtype: str = "auto",
        min_score: float = 0.0,
        max_score: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not model:
            raise ValueError("model must name a causal language model: a folder or a repository")
        self._arguments: dict[str, Any] = {
            "model": model,
            "path": path,
            "form": form,
            "dtype": dtype,
        }
        self.min_score, self.max_score = min_score, max_score
        self._scorer: TextScorer | None = None

    def compute_stats_batched(
        self, samples: dict[str, list[Any]], rank: int | None = None
    ) -> dict[str, list[Any]]:
        """Score the samples that have no score of this scorer yet."""
        stats = samples[_Fields.stats]
        if not stats:
            return samples
        scorer = self._loaded(rank)
        rows = [self._row(samples, i) for i in range(len(stats))]
        digests = [scorer.digest(row) for row in rows]
        stale = [i for i, one in enumerate(stats) if one.get(DIGEST) != digests[i]]
        scored = scorer.score([rows[i] for i in stale])
        for i, fields in zip(stale, score_fields(scored), strict=True):
            stats[i] |= fields | {DIGEST: digests[i]}
        return samples

    def _loaded(self, rank: int | None) -> TextScorer:
        if self._scorer is None:
            device = f"cuda:{rank or 0}" if self.use_cuda() else "cpu"
            self._scorer = TextScorer(**self._arguments, device=device)
        return self._scorer

    def process_batched(self, samples: dict[str, list[Any]]) -> list[bool]:
        """Return whether each sample lies between the bounds."""
        bounds = (self.min_score, self.max_score)
        scores = [one["lc"] for one in samples[_Fields.stats]]
        return [lc is None or self.get_keep_boolean(lc, *bounds) for lc in scores]

    def _row(self, samples: dict[str, list[Any]], i: int) -> dict[str, Any]:
        if self.query_key in samples and self.response_key in samples:
            # A form of Alpaca, whose fields go by these names.
            keys = {
                "query": self.query_key,
                "response": self.response_key,
                "instruction": self.instruction_key,
                "history": self.history_key,
                "system": self.system_key,
            }
            return {name: samples[key][i] for name, key in keys.items() if key in samples}
        own = {_Fields.stats, _Fields.meta, _Fields.context}
        return {name: values[i] for name, values in samples.items() if name not in own}


@_base.OPERATORS.register_module("lc_select_pipeline")
class LCSelectPipeline(_base.Pipeline):  # type: ignore[misc]
    """Keeps a share of the whole data set, by the scores that `lc_score_filter` added.

    Unlike data-juicer's selectors it works in Ray mode too: only scores and ids are sent to the
    driver. Both modes keep the same subset of the same ids.

    Args:
        keep: a float in (0, 1] is a fraction of the scored samples, an int a count.
        strategy: of `lc_engine.select`.
        gamma: of FlexRand.
        seed: of the draws.
        id_key: column of unique ids; None takes row indices, in default mode only.
        **kwargs: common to data-juicer's operators.
    """

    def __init__(
        self,
        keep: float = 0.1,
        strategy: str = "flexrand",
        gamma: float = 0.5,
        seed: int = 0,
        id_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keep, self.strategy, self.seed, self.id_key = keep, strategy, seed, id_key
        self.options: dict[str, Any] = {"gamma": gamma} if strategy == "flexrand" else {}

    def run(self, dataset: Any, *, exporter: Any = None, tracer: Any = None) -> Any:
        """Return the subset of a NestedDataset; in Ray mode of a ray.data.Dataset."""
        if hasattr(dataset, "map_batches"):
            return self._run_ray(dataset)
        if not len(dataset):
            return dataset
        if _Fields.stats not in dataset.column_names:
            raise ValueError(_NO_SCORES)
        stats = dataset[_Fields.stats][:]
        ids = np.arange(len(stats)) if self.id_key is None else dataset[self.id_key][:]
        kept = self._select(np.asarray(ids), stats)
        return dataset.select(np.flatnonzero(np.isin(np.asarray(ids), kept)).tolist())

    def _run_ray(self, dataset: Any) -> Any:
        name = self.id_key
        if name is None:
            raise ValueError("id_key must name a column of unique ids: Ray keeps no row indices")
        whole = dataset.materialize()  # scored once, not again by map_batches
        if not whole.count():
            return whole
        if _Fields.stats not in whole.columns():
            raise ValueError(_NO_SCORES)
        rows = whole.select_columns([name, _Fields.stats]).take_all()
        kept = self._select(
            np.asarray([row[name] for row in rows]), [row[_Fields.stats] for row in rows]
        )

        def filter_kept(batch: Any) -> Any:
            pa = require("pyarrow", "table")
            wanted = pa.array(kept.tolist(), batch.column(name).type)
            return batch.filter(require("pyarrow.compute", "table").is_in(batch[name], wanted))

        return whole.map_batches(filter_kept, batch_format="pyarrow")

    def _select(self, ids: NDArray[Any], stats: list[dict[str, Any]]) -> NDArray[Any]:
        if any(one.get(STATUS) is None for one in stats):
            raise ValueError(_NO_SCORES)
        lc, loss, status = ([one[name] for one in stats] for name in FIELDS)
        columns = {
            "id": ids,
            "lc": np.array(lc, dtype=np.float64),
            "loss": np.array(loss, dtype=np.float64),
            "status": np.array(status),
        }
        return select(columns, self.keep, self.strategy, by=None, seed=self.seed, **self.options)
