"""DeepCore: learning complexity as one of its coreset methods.

import deepcore.methods as methods
methods.LC = deepcore_method(scores)        # then: main.py --selection LC --fraction 0.1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lc_engine.integrations.indices import check_row_ids
from lc_engine.selection import select

if TYPE_CHECKING:
    import numpy as np

    from lc_engine.data.table import ScoreTable


def deepcore_method(table: ScoreTable, strategy: str = "flexrand", **options: Any) -> type:
    """Return a class that DeepCore's `main.py` can look up by name.

    DeepCore is not a package, so the class has the interface of its `CoresetMethod` without
    inheriting from it.

    Args:
        table: scores of DeepCore's training set; ids are row indices.
        strategy: of `lc_engine.select`.
        **options: of `lc_engine.select`, such as gamma.

    Returns:
        A class whose `select()` returns {"indices": (n,) row indices, "scores": (N,) lc}.
    """

    class LC:
        """Precomputed learning complexity."""

        def __init__(
            self,
            dst_train: Any,
            args: Any,
            fraction: float = 0.5,
            random_seed: int | None = None,
            **kwargs: Any,
        ) -> None:
            check_row_ids(table, len(dst_train))
            self.fraction = fraction
            self.random_seed = random_seed

        def select(self, **kwargs: Any) -> dict[str, np.ndarray]:
            seed = 0 if self.random_seed is None else int(self.random_seed)
            kept = select(table, float(self.fraction), strategy, seed=seed, **options)
            return {"indices": kept, "scores": table.column("lc")}

    return LC
