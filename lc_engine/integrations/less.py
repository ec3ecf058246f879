"""LESS: scores as the influence file that its step 3 reads."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from lc_engine._util.atomic_write import atomic_write
from lc_engine.data.batch import OK
from lc_engine.integrations.indices import check_row_ids
from lc_engine.selection.columns import NOTHING_TO_KEEP

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable


def write_less(
    table: ScoreTable, folder: str | Path, name: str, score: Literal["loss", "lc"] = "loss"
) -> Path:
    """Write the score file that step 3 of LESS selects by: it keeps the rows of highest score.

    Args:
        table: ids are the lines of the training file, which must have no empty ones.
        folder: LESS's `--output_path` followed by the name of the target task.
        name: of the training file, as in `--train_file_names`.
        score: "loss" keeps hard rows, "lc" easy ones. A row without a score gets −∞.

    Returns:
        The file.

    Raises:
        ValueError: ids that are not row indices, or no row with a score, of which LESS would select
            any.
    """
    check_row_ids(table, len(table))
    if not (table.column("status") == OK).any():
        raise ValueError(NOTHING_TO_KEEP)
    values = torch.from_numpy(np.nan_to_num(table.column(score), nan=-np.inf))
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{name}_influence_score.pt"
    content = BytesIO()
    torch.save(values, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return path
