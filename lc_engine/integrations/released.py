"""The code released with learning complexity: scores and subsets as its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write_npy
from lc_engine.integrations.indices import check_complete
from lc_engine.path.reduction import reduce_path
from lc_engine.selection import select

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable

_BUDGETS = tuple(i / 10 for i in range(1, 10))


def write_released(
    table: ScoreTable,
    folder: str | Path,
    strategy: str = "flexrand",
    *,
    seed: int = 0,
    **options: Any,
) -> None:
    """Write the files that the released `finetune.py` reads.

    `ls.npy` (N,) holds the loss (high = hard), `lss.npy` (K, N) −log p under every sub-model, and
    `0.1.npy` … `0.9.npy` the row indices that each budget keeps.

    Args:
        table: every row scored with `return_path=True`; ids are row indices of that code's training
            and validation sets, concatenated.
        folder: `idxs/seed_S/DATASET/PRINCIPLE/pt_PRETRAIN-arch_ARCH`.
        strategy: of `lc_engine.select`.
        seed: of the draws.
        **options: of `lc_engine.select`, such as gamma.

    Raises:
        ValueError: a row without a score, ids that are not row indices, or no `path_log_probs`.
    """
    check_complete(table)
    if "path_log_probs" not in table.column_names:
        raise ValueError(
            "scores has no path_log_probs, which lss.npy holds: score with return_path=True"
        )
    kept = {budget: select(table, budget, strategy, seed=seed, **options) for budget in _BUDGETS}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_npy(folder / "ls.npy", table.column("loss"))
    atomic_write_npy(folder / "lss.npy", -table.column("path_log_probs").T)
    for budget, rows in kept.items():
        atomic_write_npy(folder / f"{budget}.npy", rows.astype(np.int64))


def read_released(folder: str | Path, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores that the released code wrote, as columns that `lc_engine.select` takes.

    Args:
        folder: with `ls.npy` and `lss.npy`.
        labels: (N,) of the rows, which those files do not hold.

    Returns:
        Columns id, label, loss and lc, the mean of p over the sub-models.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file that is not `.npy`, or inconsistent shapes.
    """
    loss, nll = (_read(Path(folder) / name) for name in ("ls.npy", "lss.npy"))
    if nll.ndim != 2 or not len(nll) or not loss.shape == (nll.shape[1],) == np.shape(labels):
        raise ValueError(
            f"{folder}: ls.npy has shape {loss.shape}, lss.npy {nll.shape} and labels "
            f"{np.shape(labels)}; they must be (N,), (K, N) and (N,)"
        )
    lc = reduce_path(-nll.astype(np.float64), [1 / len(nll)] * len(nll)).lc
    return {"id": np.arange(len(loss)), "label": np.asarray(labels), "loss": loss, "lc": lc}


def _read(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a .npy array: {error}") from None
    return array
