"""What a head learns from the data of a run, and how the run's folder keeps it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeVar, cast

from lc_engine._util.atomic_write import write_once
from lc_engine.heads.memory_bank import MemoryBank
from lc_engine.heads.prototype import Prototypes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lc_engine.backbone.dtypes import Precision

Learnt = Prototypes | MemoryBank
_T = TypeVar("_T")
_DTYPE_FILE: Final = "dtype.json"


def keep_dtype(folder: Path | None, measure: Callable[[], Precision]) -> Precision:
    """Return the dtype that a run has, measured where it has none yet."""

    def save(dtype: Precision, path: Path) -> None:
        path.write_text(json.dumps({"dtype": dtype}) + "\n", encoding="utf-8")

    def load(path: Path) -> Precision:
        return cast("Precision", json.loads(path.read_text(encoding="utf-8"))["dtype"])

    return _kept(folder, _DTYPE_FILE, measure, save, load)


def keep_learnt(folder: Path | None, head: str, learn: Callable[[], Learnt]) -> Learnt:
    """Return what the head of a run has learnt, learning it where it has not yet."""

    def save(learnt: Learnt, path: Path) -> None:
        learnt.save(path)

    if head == "knn":
        return _kept(folder, "bank.npz", learn, save, MemoryBank.load)
    return _kept(folder, "prototypes.npz", learn, save, Prototypes.load)


def _kept(
    folder: Path | None,
    name: str,
    make: Callable[[], _T],
    save: Callable[[_T, Path], None],
    load: Callable[[Path], _T],
) -> _T:
    """Return the content of a file of a run; of processes that make it at once, the first one's.

    Without a folder the value is made and not kept.
    """
    if folder is None:
        return make()
    path = folder / name
    if not path.exists():
        value = make()
        write_once(path, lambda temporary: save(value, temporary))
    return load(path)
