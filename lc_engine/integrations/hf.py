"""Hugging Face `datasets`: scores as columns, and subsets that are as fast to read.

scored = with_scores(dataset, lc.score(scorer, dataset, out="scores/"))
trainer = SFTTrainer(model, train_dataset=subset(dataset, lc.select(scores, 0.1)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine._util.extras import require
from lc_engine.integrations.indices import check_kept, check_row_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from numpy.typing import ArrayLike

    from lc_engine.data.table import ScoreTable


def with_scores(
    dataset: Dataset, table: ScoreTable, columns: Sequence[str] = ("lc", "loss", "lc_std", "status")
) -> Dataset:
    """Return a data set with score columns; its other columns are neither copied nor rewritten.

    Args:
        dataset: the data set that was scored, in the same order.
        table: its scores.
        columns: of the table; null for a row without a score.

    Raises:
        ValueError: a table of other rows, a column that it lacks, or one that the data set has.
    """
    hf = require("datasets", "hf")
    check_row_ids(table, len(dataset))
    for name in columns:
        if name not in table.column_names:
            raise ValueError(
                f"columns: scores has no {name!r}; it has {', '.join(table.column_names)}"
            )
        if name in dataset.column_names:
            raise ValueError(f"columns: the data set already has a column {name!r}: remove it")
    scores = hf.Dataset(table.table.select(list(columns)).replace_schema_metadata(None))
    if not len(dataset):  # concatenate_datasets leaves out what has no rows, with its columns
        features = hf.Features(dataset.features | scores.features)
        return hf.Dataset.from_dict({name: [] for name in features}, features)
    joined: Dataset = hf.concatenate_datasets([dataset, scores], axis=1)
    return joined


def subset(dataset: Dataset, keep: ArrayLike) -> Dataset:
    """Return the kept rows, in the order of the data set, with its columns.

    They are rewritten, without the list of indices that `Dataset.select` adds and that slows every
    later read.

    Args:
        dataset: the data set that was scored.
        keep: row indices, as `lc_engine.select` returns them.

    Raises:
        ValueError: row indices out of range, or a duplicate.
    """
    kept: Dataset = dataset.select(check_kept(keep, len(dataset))).flatten_indices()
    return kept
