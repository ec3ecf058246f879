"""Every file that is written stays as it was, or does not exist, where the disk is full."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from helpers.score_tables import random_table
from helpers.selection_tables import as_table, random_columns
from lc_engine.cli.select_options import SelectOptions
from lc_engine.data.table import ScoreTable
from lc_engine.heads.memory_bank import MemoryBank
from lc_engine.heads.prototype import Prototypes
from lc_engine.integrations.ccs import write_ccs
from lc_engine.integrations.files import write_subset
from lc_engine.integrations.less import write_less
from lc_engine.integrations.released import write_released

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 2000
LIMIT = 1024


@contextmanager
def full_disk():
    """No file of this process grows beyond `LIMIT` bytes: a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def select_ids(path: Path) -> None:
    table = path.parent.parent / "scores.parquet"
    SelectOptions(scores=table, out=path, keep=0.9, gamma=0.5).run()


def subset(path: Path) -> None:
    write_subset(path.parent.parent / f"data{path.suffix}", np.arange(ROWS), path)


def released(path: Path) -> None:
    write_released(numbered(), path.parent, gamma=0.5)


def numbered() -> ScoreTable:
    columns = random_columns(0, ROWS)
    columns["id"] = np.arange(ROWS)
    rng = np.random.default_rng(0)
    return ScoreTable.from_arrays(
        ids=columns["id"],
        labels=columns["label"],
        lc=columns["lc"],
        loss=columns["loss"],
        lc_std=columns["lc_std"],
        status=["ok"] * ROWS,
        detail=[""] * ROWS,
        metadata={},
        path_log_probs=-rng.random((ROWS, 2)).astype(np.float32),
    )


def prototypes(path: Path) -> None:
    Prototypes(torch.arange(100), torch.rand(100, 30), torch.ones(100).long()).save(path)


def bank(path: Path) -> None:
    MemoryBank(np.arange(100), torch.zeros(100).long(), (torch.rand(100, 30),)).save(path)


WRITERS = {
    "ids.txt": select_ids,
    "ids.npy": select_ids,
    "rows.parquet": select_ids,
    "table.parquet": lambda path: random_table(rows=ROWS).write(path),
    "scores.pickle": lambda path: write_ccs(numbered(), path),
    "x_influence_score.pt": lambda path: write_less(numbered(), path.parent, "x"),
    "ls.npy": released,
    "subset.jsonl": subset,
    "subset.json": subset,
    "prototypes.npz": prototypes,
    "bank.npz": bank,
}


@pytest.fixture
def folder(tmp_path):
    as_table(random_columns(0, ROWS)).write(tmp_path / "scores.parquet")
    (tmp_path / "data.jsonl").write_text("".join(f'{{"row": {i}}}\n' for i in range(ROWS)))
    (tmp_path / "data.json").write_text(str([*range(ROWS)]))
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# numpy 1 closes the archive of a `.npz` that it could not write once more, too late.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <function ZipFile:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_earlier_file_and_no_other(folder, name):
    (folder / name).write_text("the earlier file")
    with full_disk(), pytest.raises(OSError, match=r"too large|written"):
        WRITERS[name](folder / name)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: "the earlier file"}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_writers_replace_the_file_where_there_is_room(folder, name):
    (folder / name).write_text("the earlier file")
    WRITERS[name](folder / name)
    assert (folder / name).stat().st_size > LIMIT
    assert not list(folder.glob("*.tmp"))
