"""What a head learns from the data of a run, and how the run's folder keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar
from zipfile import BadZipFile

from lc_engine._util.atomic_write import write_once
from lc_engine.data.run.side_files import side_file
from lc_engine.heads.memory_bank import MemoryBank
from lc_engine.heads.origin import check_origin
from lc_engine.heads.prototype import Prototypes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lc_engine.backbone.dtypes import Precision

Learnt = Prototypes | MemoryBank
_T = TypeVar("_T")
_DTYPE_FILE: Final = "dtype.json"


def keep_dtype(
    folder: Path | None, origin: Callable[[], Mapping[str, Any]], choose: Callable[[], Precision]
) -> Precision:
    """Return the dtype that a run has, chosen where it has none yet.

    Args:
        folder: of the run, or None.
        origin: returns what the run scores; not called without a folder.
        choose: returns the dtype.

    Raises:
        ValueError: the folder has the dtype of another run.
    """

    def save(dtype: Precision, path: Path) -> None:
        text = json.dumps({"dtype": dtype, "origin": origin()})
        path.write_text(text + "\n", encoding="utf-8")

    def load(path: Path) -> tuple[Precision, Any]:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["dtype"], found.get("origin")

    return _kept(folder, _DTYPE_FILE, choose, save, load, origin)


def keep_learnt(
    folder: Path | None,
    head: str,
    origin: Callable[[], Mapping[str, Any]],
    learn: Callable[[], Learnt],
) -> Learnt:
    """Return what the head of a run has learnt, learning it where it has not yet.

    Args:
        folder: of the run, or None.
        head: its kind.
        origin: returns what the head learns from; not called without a folder.
        learn: learns.

    Raises:
        ValueError: the folder has what the head of another run learnt.
    """
    name, kind = ("bank.npz", MemoryBank) if head == "knn" else ("prototypes.npz", Prototypes)

    def save(learnt: Learnt, path: Path) -> None:
        replace(learnt, origin=origin()).save(path)

    def load(path: Path) -> tuple[Learnt, Any]:
        learnt: Learnt = kind.load(path)
        return learnt, learnt.origin

    return _kept(folder, name, learn, save, load, origin)


def _kept(
    folder: Path | None,
    name: str,
    make: Callable[[], _T],
    save: Callable[[_T, Path], None],
    load: Callable[[Path], tuple[_T, Any]],
    origin: Callable[[], Mapping[str, Any]],
) -> _T:
    """Return the content of a file of a run; of processes that make it at once, the first one's.

    Without a folder the value is made and not kept.
    """
    if folder is None:
        return make()
    path = side_file(folder, name)
    if not path.exists():
        value = make()
        write_once(path, lambda temporary: save(value, temporary))
    try:
        value, found = load(path)
    except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and start again") from None
    check_origin(path, found, origin())
    return value
