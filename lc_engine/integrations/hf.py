"""Hugging Face `datasets`: scores as columns, and subsets that read as fast as the whole.

scored = with_scores(dataset, lc.score(scorer, dataset, out="scores/"))
trainer = SFTTrainer(model, train_dataset=subset(dataset, lc.select(scores, 0.1)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine._util.extras import require
from lc_engine.integrations.indices import check_chosen, check_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from numpy.typing import ArrayLike

    from lc_engine.data.table import ScoreTable


def with_scores(
    dataset: Dataset, table: ScoreTable, columns: Sequence[str] = ("lc", "loss", "lc_std", "status")
) -> Dataset:
    """Add score columns to a data set; its other columns are neither copied nor written again.

    Args:
        dataset: the data set that was scored, in the same order.
        table: its scores.
        columns: of the table; null where a row has no score.

    Raises:
        ValueError: a table of other rows, a column that it has not, or one that the data set has.
    """
    hf = require("datasets", "hf")
    check_positions(table, len(dataset))
    for name in columns:
        if name not in table.column_names:
            raise ValueError(
                f"columns: scores has no {name!r}; it has {', '.join(table.column_names)}"
            )
        if name in dataset.column_names:
            raise ValueError(f"columns: the data set has a column {name!r} already: remove it")
    scores = hf.Dataset(table.table.select(list(columns)).replace_schema_metadata(None))
    joined: Dataset = hf.concatenate_datasets([dataset, scores], axis=1)
    return joined


def subset(dataset: Dataset, keep: ArrayLike) -> Dataset:
    """Give the chosen rows in the order of the data set, and its columns.

    They are written anew, without the list of positions that `Dataset.select` leaves behind and
    that makes every later read slow.

    Args:
        dataset: the data set that was scored.
        keep: positions, as `lc_engine.select` returns them.

    Raises:
        ValueError: positions that do not fit.
    """
    chosen: Dataset = dataset.select(check_chosen(keep, len(dataset))).flatten_indices()
    return chosen
