"""CCS and D2 pruning: scores as the pickle that their programs read.

A pickle because they read nothing else; none is ever read here.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lc_engine._util.atomic_write import atomic_write
from lc_engine.integrations.indices import check_complete

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable


def write_ccs(table: ScoreTable, path: str | Path) -> None:
    """Write the score file of Coverage-centric Coreset Selection and of D2 pruning.

    Keys: "targets", the labels; "learning_complexity", lc (high = easy), for `--coreset-key`; and
    "accumulated_margin", lc too, since CCS's stratified mode drops the rows that are lowest in a
    key of that name, whatever `--mis-key` says.

    Args:
        table: every row scored; ids are the row indices of CCS's training set.
        path: such as `data-score-cifar10.pickle`.

    Raises:
        ValueError: a row without a score, or ids that are not row indices.
    """
    check_complete(table)
    lc = torch.from_numpy(table.column("lc").copy())
    scores = {
        "targets": torch.from_numpy(table.column("label").copy()),
        "learning_complexity": lc,
        "accumulated_margin": lc.clone(),
    }
    with atomic_write(Path(path)) as temporary, temporary.open("wb") as file:
        pickle.dump(scores, file)
