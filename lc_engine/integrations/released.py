"""Scores as the files of published research code: CCS and D2, LESS, and the authors' own.

Their programs then run unchanged. Pickles are written because CCS and D2 read nothing else; none
is ever read here.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lc_engine.data.batch import OK
from lc_engine.integrations.indices import check_positions
from lc_engine.path.reduction import reduce_path
from lc_engine.selection import select

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable

_BUDGETS = tuple(tenths / 10 for tenths in range(1, 10))


def write_ccs(table: ScoreTable, path: str | Path) -> None:
    """Write the score file of Coverage-centric Coreset Selection and of D2 pruning.

    Keys: "targets", the labels; "learning_complexity", lc (high = easy), for `--coreset-key`; and
    "accumulated_margin", lc too, since CCS's stratified mode drops the rows that are lowest in a
    key of that name, whatever `--mis-key` says.

    Args:
        table: every row scored, ids are the positions in CCS's training set.
        path: such as `data-score-cifar10.pickle`.

    Raises:
        ValueError: a row without a score, or ids that are not positions.
    """
    _check_complete(table)
    lc = torch.from_numpy(table.column("lc").copy())
    scores = {
        "targets": torch.from_numpy(table.column("label").copy()),
        "learning_complexity": lc,
        "accumulated_margin": lc.clone(),
    }
    with Path(path).open("wb") as file:
        pickle.dump(scores, file)


def write_less(
    table: ScoreTable, folder: str | Path, name: str, score: Literal["loss", "lc"] = "loss"
) -> Path:
    """Write the score file that step 3 of LESS selects by: it keeps the rows of highest score.

    Args:
        table: ids are the lines of the training file, which must have no empty ones.
        folder: LESS's `--output_path` with the name of the target task behind it.
        name: of the training file, as in `--train_file_names`.
        score: "loss" keeps hard rows, "lc" easy ones. A row without a score gets −∞.

    Returns:
        The file.

    Raises:
        ValueError: ids that are not positions.
    """
    check_positions(table, len(table))
    values = torch.from_numpy(np.nan_to_num(table.column(score), nan=-np.inf))
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{name}_influence_score.pt"
    torch.save(values, path)
    return path


def write_released(
    table: ScoreTable,
    folder: str | Path,
    strategy: str = "flexrand",
    *,
    seed: int = 0,
    **options: Any,
) -> None:
    """Write what the code released with learning complexity leaves for its `finetune.py`.

    `ls.npy` (N,) holds the loss (high = hard), `lss.npy` (K, N) −log p under every sub-model, and
    `0.1.npy` … `0.9.npy` the positions that each budget keeps.

    Args:
        table: every row scored with `return_path=True`; ids are positions in that code's training
            and validation sets, one after the other.
        folder: `idxs/seed_S/DATASET/PRINCIPLE/pt_PRETRAIN-arch_ARCH`.
        strategy: of `lc_engine.select`.
        seed: of the draws.
        **options: of `lc_engine.select`, such as gamma.

    Raises:
        ValueError: a row without a score, ids that are not positions, or no `path_log_probs`.
    """
    _check_complete(table)
    if "path_log_probs" not in table.column_names:
        raise ValueError(
            "scores has no path_log_probs, of which lss.npy is made: score with return_path=True"
        )
    kept = {budget: select(table, budget, strategy, seed=seed, **options) for budget in _BUDGETS}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ls.npy", table.column("loss"))
    np.save(folder / "lss.npy", -table.column("path_log_probs").T)
    for budget, rows in kept.items():
        np.save(folder / f"{budget}.npy", rows.astype(np.int64))


def read_released(folder: str | Path, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Read the scores that the released code left, as columns that `lc_engine.select` takes.

    Args:
        folder: with `ls.npy` and `lss.npy`.
        labels: (N,) of the rows, which those files do not hold.

    Returns:
        Columns id, label, loss and lc, the mean of p over the sub-models.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: shapes that do not go together.
    """
    loss = np.load(Path(folder) / "ls.npy", allow_pickle=False)
    each = np.load(Path(folder) / "lss.npy", allow_pickle=False)
    if each.ndim != 2 or not loss.shape == (each.shape[1],) == np.shape(labels):
        raise ValueError(
            f"{folder}: ls.npy has shape {loss.shape}, lss.npy {each.shape} and labels "
            f"{np.shape(labels)}; they must be (N,), (K, N) and (N,)"
        )
    lc = reduce_path(-each.astype(np.float64), [1 / len(each)] * len(each)).lc
    return {"id": np.arange(len(loss)), "label": np.asarray(labels), "loss": loss, "lc": lc}


def _check_complete(table: ScoreTable) -> None:
    check_positions(table, len(table))
    bad = np.flatnonzero(table.column("status") != OK)
    if len(bad):
        status, detail = (table.column(name)[bad[0]] for name in ("status", "detail"))
        raise ValueError(
            f"{len(bad)} rows have no score, and this format has no place for them; the first is "
            f"row {bad[0]}: {status}: {detail}"
        )
