"""The language scorer against the plain loop: the same rows, in turns, in one process."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.language.plain_loop import PlainLoop
from lc_engine._util.ranks import spearman
from lc_engine._util.turns import in_turns
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.masking import Masking

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from lc_engine.data.batch import Batch
    from lc_engine.masking import Kind
    from lc_engine.path.learning_path import LearningPath


@dataclass(frozen=True)
class LanguageComparison:
    """Seconds that each way took for the NLL of the same rows under the same sub-models.

    Attributes:
        family: of the sub-models, "magnitude" or "dropout".
        sub_models: K.
        rows: M.
        tokens: of the rows together.
        seconds: of "loop", the engine in "float32", and the engine in its "auto" dtype; medians.
        auto_dtype: what "auto" is on this machine.
        nll_difference: largest |NLL − NLL of the loop| of the engine in float32.
        lc_difference: the same of lc, the mean of 1 / perplexity.
        auto_correlation: Spearman's, between lc in the auto dtype and the loop's.
        padding: share of the tokens that went through the model.
        computed: tokens that went through the model, over tokens of the rows.
    """

    family: str
    sub_models: int
    rows: int
    tokens: int
    seconds: dict[str, float]
    auto_dtype: str
    nll_difference: float
    lc_difference: float
    auto_correlation: float
    padding: float
    computed: float

    def times_faster(self, way: str) -> float:
        """Return how many times as long as a way the loop took."""
        return self.seconds["loop"] / self.seconds[way]

    def tokens_per_second(self, way: str) -> float:
        """Return the tokens of the rows, once per sub-model, over the seconds of a way."""
        return self.sub_models * self.tokens / self.seconds[way]


def compare_language(
    folder: Path, rows: list[Any], path: LearningPath, kind: Kind, rounds: int
) -> LanguageComparison:
    """Score rows by the engine in float32, in its auto dtype, and by the loop in float32.

    All begin from the same tokens. What is worked out once for a model (thresholds, random
    numbers) is in nobody's time: every way but the loop runs once before it is timed.

    Args:
        folder: of a Llama.
        rows: of an instruction set.
        path: the capacities.
        kind: "magnitude" (per layer) or "dropout".
        rounds: of every way; each begins with another one.
    """
    # The loop does not score the whole model, so the engine must not either.
    scorers = {
        dtype: CausalLMScorer(
            LanguageModelSpec(str(folder), dtype),
            path=path,
            masking=Masking(kind, scope="layer"),
            whole_model=False,
        )
        for dtype in ("float32", "auto")
    }
    batch = next(scorers["float32"].transform.open_source(rows).batches(len(rows)))
    loop = PlainLoop(LanguageModelSpec(str(folder), "float32").load()[0], path, kind)
    ways: dict[str, Callable[[], Tensor]] = {
        dtype: functools.partial(_nll, scorer, batch) for dtype, scorer in scorers.items()
    }
    for way in ways.values():
        way()
    usage = scorers["float32"].usage
    found, seconds = _in_turns(ways | {"loop": lambda: loop.nll(batch.inputs)}, rounds)
    omega = np.array(path.weights)
    lc = {name: omega @ np.exp(-nll.numpy()) for name, nll in found.items()}
    return LanguageComparison(
        family=kind,
        sub_models=len(path),
        rows=len(rows),
        tokens=sum(len(row.ids) for row in batch.inputs),
        seconds=seconds,
        auto_dtype=scorers["auto"].describe()["dtype"],
        nll_difference=float((found["float32"] - found["loop"]).abs().max()),
        lc_difference=float(np.abs(lc["float32"] - lc["loop"]).max()),
        auto_correlation=spearman(lc["auto"], lc["loop"]),
        padding=usage.waste,
        computed=usage.computed / usage.asked,
    )


def _nll(scorer: CausalLMScorer, batch: Batch) -> Tensor:
    log_probs = scorer.score_rows(batch).scores.log_probs
    assert log_probs is not None
    return -log_probs.double()


def _in_turns(
    ways: dict[str, Callable[[], Tensor]], rounds: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tensor] = {}
    for name in in_turns(ways, rounds):
        began = time.perf_counter()
        found[name] = ways[name]()
        seconds[name].append(time.perf_counter() - began)
    return found, {name: statistics.median(times) for name, times in seconds.items()}
