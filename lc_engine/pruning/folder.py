"""The folder of a pruned data set: whole, or marked as unfinished."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine.data.run.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCORES: Final = "scores"
DATA: Final = "data"
SELECTION: Final = "selection.json"
# What a finished folder holds besides the scores; put in place in this order.
RESULTS: Final = (
    DATA,
    "rows.parquet",
    "positions.npy",
    "suspicious.csv",
    "report.html",
    "report.suspicious.csv",
    SELECTION,
)
UNFINISHED: Final = "UNFINISHED"
_STAGED: Final = ".new-"
_NOTE: Final = (
    "lc-engine prune has not finished here: what lies beside this file is missing, incomplete or "
    "of an earlier run. The same command continues, and removes this file at its end.\n"
)


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder; without results it is marked as unfinished.

    Raises:
        ValueError: another process is at work there, or the folder holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"out: {folder} is a file, not a folder") from None
    finished = _is_finished(folder)
    if not finished and not (folder / UNFINISHED).exists():
        taken = [name for name in RESULTS if (folder / name).exists()]
        if taken:
            raise ValueError(
                f"out: {folder} holds {taken[0]}, which prune did not write and would replace: "
                "choose another folder"
            )
    with Leases() as leases:
        if not leases.take(folder / ".lease"):
            raise ValueError(f"out: another process is at work in {folder}: wait for its end")
        for left_over in folder.glob(f"{_STAGED}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        for left_over in folder.glob("*.????????????.tmp"):
            left_over.unlink(missing_ok=True)
        if not finished:
            atomic_write_text(folder / UNFINISHED, _NOTE)
        yield


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write all results to, which then take the place of the earlier ones.

    If the context raises, the folder stays as it was.
    """
    new = folder / f"{_STAGED}{uuid.uuid4().hex[:12]}"
    new.mkdir()
    try:
        yield new
        _publish(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _publish(folder: Path, new: Path) -> None:
    atomic_write_text(folder / UNFINISHED, _NOTE)
    old = new / "old"
    old.mkdir()
    for name in RESULTS:
        if (folder / name).exists():
            (folder / name).rename(old / name)
        if (new / name).exists():
            (new / name).rename(folder / name)
    (folder / UNFINISHED).unlink()


def _is_finished(folder: Path) -> bool:
    if (folder / UNFINISHED).exists():
        return False
    try:
        found = json.loads((folder / SELECTION).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(found, dict) and "lc_engine" in found.get("versions", {})
