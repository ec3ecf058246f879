"""DataFlex: the selector "lc", and DataFlex's command with that selector registered.

    python -m lc_engine.integrations.dataflex train train.yaml

in place of `dataflex-cli train train.yaml`, with `component_name: lc` there and in its components

    selectors: {lc: {params: {scores: scores/, cache_dir: run/lc}}}
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.table import ScoreTable
from lc_engine.integrations.indices import check_row_ids
from lc_engine.selection import select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_registry: Any = require("dataflex.core.registry", "dataflex")
_Selector: Any = require("dataflex.train.selector.base_selector", "dataflex").Selector
_io: Any = require("dataflex.utils.selector_io", "dataflex")

_COLUMNS = ("id", "lc", "loss", "lc_std", "status")


@_registry.register_selector("lc")
class LCSelector(_Selector):  # type: ignore[misc]
    """Selects the samples of each interval by a score table: another subset at each step.

    A subset depends only on the seed and the step, so that all processes, and a resumed run, select
    the same. Each is written to `cache_dir`, as by DataFlex's own selectors.

    Args:
        dataset: given by DataFlex, like `accelerator` and `data_collator`.
        accelerator: given by DataFlex.
        data_collator: given by DataFlex.
        cache_dir: where the subsets are written.
        scores: file or folder of scores of the training rows; ids are row indices.
        strategy: of `lc_engine.select`, like `gamma` and `seed`.
        gamma: of FlexRand.
        seed: of the draws.

    Raises:
        ValueError: scores of other rows, also because LLaMA-Factory drops rows without a response.
    """

    def __init__(
        self,
        dataset: Any,
        accelerator: Any,
        data_collator: Any,
        cache_dir: str,
        scores: str,
        strategy: str = "flexrand",
        gamma: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, accelerator, data_collator, cache_dir)
        table = ScoreTable.read(scores)
        check_row_ids(table, len(dataset))
        self.columns = {name: table.column(name) for name in _COLUMNS}
        self.strategy, self.seed = strategy, seed
        self.options: dict[str, Any] = {"gamma": gamma} if strategy == "flexrand" else {}

    def select(self, model: Any, step_id: int, num_samples: int, **kwargs: Any) -> list[int]:
        """Return the row indices of an interval, among those that an earlier stage kept."""
        pool = np.asarray(self.candidate_positions(), dtype=np.int64)
        columns = {name: values[pool] for name, values in self.columns.items()}
        kept = select(
            columns, num_samples, self.strategy, by=None, seed=self.seed + step_id, **self.options
        )
        metric = {name: self.columns[name][kept].tolist() for name in ("lc", "loss")}
        path = Path(self.cache_dir) / f"step_{step_id}.json"
        indices: list[int] = kept.tolist()
        _io.save_selection(str(path), indices, metric, self.accelerator)
        return indices


def score_source(
    scores: ScoreTable, column: str = "loss"
) -> Callable[[Sequence[int]], list[float]]:
    """Return a source for `set_score_source` of DataFlex's selectors, which then compute nothing.

    Args:
        scores: of the training rows; ids are row indices.
        column: "loss" for selectors that expect a loss. Rows without a score have NaN, which these
            selectors skip.

    Raises:
        ValueError: ids that are not row indices.
    """
    check_row_ids(scores, len(scores))
    values = np.where(scores.column("status") == OK, scores.column(column), np.nan)
    return lambda indices: values[np.asarray(indices, dtype=np.int64)].tolist()


def main() -> None:
    """Run DataFlex's command, also in the processes that it starts for several GPUs."""
    launcher = require("dataflex.launcher", "dataflex")
    if "LOCAL_RANK" in os.environ:
        launcher.launch()
    else:
        # DataFlex passes this name to torchrun.
        launcher.__file__ = "-m lc_engine.integrations.dataflex"
        require("dataflex.cli", "dataflex").main()


if __name__ == "__main__":
    main()
