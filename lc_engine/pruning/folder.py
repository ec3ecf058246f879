"""The folder of a pruned data set: whole, or marked as unfinished."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine.data.locations import check_outside, folders_of
from lc_engine.data.run.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_LEASE: Final = ".lease"
_STAGED: Final = ".new-"
_NOTE: Final = (
    "lc-engine prune has not finished here: what lies beside this file is missing, incomplete or "
    "of an earlier run. The same command continues, and removes this file at its end.\n"
)


def check_outside_of(out: Path, data: Any) -> None:
    """Refuse to write into the folder of the data, or to replace data that lie in the results.

    Args:
        out: the folder to write.
        data: a location, a mapping of names to several, or rows that keep their `folders`.

    Raises:
        ValueError: `out` is inside the data, or the data are among the results there.
    """
    check_outside(out, data)
    for one in data.values() if isinstance(data, Mapping) else [data]:
        places = [Path(one)] if isinstance(one, str | os.PathLike) else folders_of(one)
        for place in places:
            within = [
                name for name in RESULTS if place.resolve().is_relative_to(out.resolve() / name)
            ]
            if within:
                raise ValueError(
                    f"out: the data {place} lie in {out / within[0]}, which would be replaced: "
                    "choose another folder"
                )


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder; without results it is marked as unfinished.

    If the context raises before anything is written, a folder that this call made goes again.

    Raises:
        ValueError: another process is at work there, or the folder holds something else.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"out: {folder} is a file, not a folder") from None
    try:
        with _leased(folder):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


@contextmanager
def _leased(folder: Path) -> Iterator[None]:
    finished = _is_finished(folder)
    if not finished and not (folder / UNFINISHED).exists():
        taken = [name for name in RESULTS if (folder / name).exists()]
        if taken:
            raise ValueError(
                f"out: {folder} holds {taken[0]}, which prune did not write and would replace: "
                "choose another folder"
            )
    with Leases() as leases:
        if not leases.take(folder / _LEASE):
            raise ValueError(f"out: another process is at work in {folder}: wait for its end")
        for left_over in folder.glob(f"{_STAGED}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        for left_over in folder.glob("*.????????????.tmp"):
            left_over.unlink(missing_ok=True)
        if not finished:
            atomic_write_text(folder / UNFINISHED, _NOTE)
        try:
            yield
        finally:
            _forget_if_empty(folder)


def _forget_if_empty(folder: Path) -> None:
    """Remove the mark of a folder that holds nothing else; its lease is removed later."""
    with suppress(OSError):  # no scores, or some
        (folder / SCORES).rmdir()
    if {path.name for path in folder.iterdir()} <= {UNFINISHED, _LEASE}:
        (folder / UNFINISHED).unlink(missing_ok=True)


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
