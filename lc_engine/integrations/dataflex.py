"""DataFlex: the selector "lc", and DataFlex's command with that selector known to it.

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
from lc_engine.integrations.indices import check_positions
from lc_engine.selection import select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_registry: Any = require("dataflex.core.registry", "dataflex")
_Selector: Any = require("dataflex.train.selector.base_selector", "dataflex").Selector
_io: Any = require("dataflex.utils.selector_io", "dataflex")

_COLUMNS = ("id", "lc", "loss", "lc_std", "status")


@_registry.register_selector("lc")
class LCSelector(_Selector):  # type: ignore[misc]
    """Draws the samples of each interval from a score table: another draw at each step.

    A draw depends on the seed and the step alone, so that all processes, and a run that
    continues, choose the same. Each is written to `cache_dir`, as by DataFlex's own selectors.

    Args:
        dataset: given by DataFlex, like `accelerator` and `data_collator`.
        accelerator: given by DataFlex.
        data_collator: given by DataFlex.
        cache_dir: where the draws are written.
        scores: file or folder of scores of the training rows, whose ids are their positions.
        strategy: of `lc_engine.select`, like `gamma` and `seed`.
        gamma: of FlexRand.
        seed: of the draws.

    Raises:
        ValueError: scores of other rows, also where LLaMA-Factory left out rows of the data:
            those without a response.
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
        check_positions(table, len(dataset))
        self.columns = {name: table.column(name) for name in _COLUMNS}
        self.strategy, self.seed = strategy, seed
        self.options: dict[str, Any] = {"gamma": gamma} if strategy == "flexrand" else {}

    def select(self, model: Any, step_id: int, num_samples: int, **kwargs: Any) -> list[int]:
        """Choose the positions of an interval, among those that an earlier stage left."""
        pool = np.asarray(self.candidate_positions(), dtype=np.int64)
        columns = {name: values[pool] for name, values in self.columns.items()}
        chosen = select(
            columns, num_samples, self.strategy, by=None, seed=self.seed + step_id, **self.options
        )
        metric = {name: self.columns[name][chosen].tolist() for name in ("lc", "loss")}
        path = Path(self.cache_dir) / f"step_{step_id}.json"
        positions: list[int] = chosen.tolist()
        _io.save_selection(str(path), positions, metric, self.accelerator)
        return positions


def score_source(
    scores: ScoreTable, column: str = "loss"
) -> Callable[[Sequence[int]], list[float]]:
    """Make what `set_score_source` of DataFlex's own selectors takes, for them to compute nothing.

    Args:
        scores: of the training rows, whose ids are their positions.
        column: "loss" for selectors that want a loss. Rows without a score give NaN, which these
            selectors leave out.
    """
    values = np.where(scores.column("status") == OK, scores.column(column), np.nan)
    return lambda positions: values[np.asarray(positions, dtype=np.int64)].tolist()


def main() -> None:
    """Run DataFlex's command; the processes that it starts for several GPUs come here too."""
    launcher = require("dataflex.launcher", "dataflex")
    if "LOCAL_RANK" in os.environ:
        launcher.launch()
    else:
        # DataFlex puts this file's name into torchrun's command line.
        launcher.__file__ = "-m lc_engine.integrations.dataflex"
        require("dataflex.cli", "dataflex").main()


if __name__ == "__main__":
    main()
