"""Features of the whole model beside a score table: a `.npy` per part, written row by row."""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lc_engine._util.atomic_write import GrowingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.batch import Batch

_log = logging.getLogger(__name__)

# What the manifest of a run that keeps features says of them.
STORED: Final = "float16"
_PREFIX: Final = "_features"
_CHUNK_BYTES: Final = 1 << 24


def features_path(part: Path) -> Path:
    """Return the file of the features that go with a part of a score table.

    Its name begins with an underscore: readers of Parquet folders skip such files.
    """
    return part.with_name(f"{_PREFIX}{part.stem.removeprefix('part')}.npy")


def is_complete(path: Path, rows: int) -> bool:
    """Return whether a file holds the features of that many rows."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False)) == rows
    except (OSError, ValueError, EOFError):  # absent, truncated, or not a .npy
        return False


class FeatureFile:
    """Features of the rows of one part, appended batch by batch.

    They are float16; where a value exceeds float16, the whole file is float32.

    Args:
        path: of the `.npy` file, which takes its place at `commit`.
        rows: of the part.
        of: rows of all parts; the first part says how much space they will take.
    """

    def __init__(self, path: Path, rows: int, of: int) -> None:
        self._path, self._rows, self._of = path, rows, of
        self._file = GrowingFile(path)
        self._dtype: np.dtype[Any] = np.dtype("<f2")
        self._width: int | None = None
        self._written = 0
        self._waiting = 0  # rows without features before the first that has some

    def add(self, features: NDArray[np.float32] | None, rows: int) -> None:
        """Append a batch.

        Args:
            features: (rows, D), NaN for a row that has none; None if no row has any.
            rows: of the batch.
        """
        if features is None and self._width is None:
            self._waiting += rows
            return
        if self._width is None:
            assert features is not None
            self._begin(features.shape[1])
        assert self._width is not None
        if features is None:
            features = np.full((rows, self._width), np.nan, np.float32)
        self._append(features)

    def _begin(self, width: int) -> None:
        self._width = width
        if "-00000-of-" in self._path.name:
            _log.info(
                "features: %s rows of %s float16, %.1f MB beside the scores",
                f"{self._of:,}",
                f"{width:,}",
                self._of * width * 2 / 1e6,
            )
        self._file.write(_header((self._rows, width), self._dtype))
        self._append(np.full((self._waiting, width), np.nan, np.float32))

    def _append(self, features: NDArray[np.float32]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.ascontiguousarray(features, self._dtype)
        if self._dtype.itemsize == 2 and (np.isinf(stored) & np.isfinite(features)).any():
            self._widen()
            stored = np.ascontiguousarray(features, self._dtype)
        self._file.write(stored.data.cast("B") if stored.size else b"")
        self._written += len(features)

    def _widen(self) -> None:
        """Begin again in float32, with what was written so far."""
        _log.warning("features exceed float16: %s is float32", self._path.name)
        narrow, self._file = self._file, GrowingFile(self._path)
        self._dtype = np.dtype("<f4")
        assert self._width is not None
        self._file.write(_header((self._rows, self._width), self._dtype))
        source = narrow.rewind()
        np.lib.format.read_magic(source)
        np.lib.format.read_array_header_1_0(source)
        while content := source.read(_CHUNK_BYTES):
            self._file.write(np.frombuffer(content, "<f2").astype(self._dtype).tobytes())
        narrow.discard()

    def commit(self) -> None:
        """Put the file in its place.

        Raises:
            ValueError: rows are missing.
            FileNotFoundError: another process deleted what was written so far.
        """
        if self._width is None:
            self._begin(0)
        if self._written != self._rows:
            raise ValueError(f"{self._path.name} must hold {self._rows} rows, got {self._written}")
        self._file.commit()

    def discard(self) -> None:
        """Delete what was written so far."""
        self._file.discard()


def _header(shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:

    target = io.BytesIO()
    described = {"shape": shape, "fortran_order": False, "descr": dtype.str}
    np.lib.format.write_array_header_1_0(target, described)
    return target.getvalue()


def of_batch(batch_ok: NDArray[np.bool_], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features (M, D) of the M rows that a mask (B,) marks as (B, D), NaN elsewhere."""
    if batch_ok.all():
        return features
    whole = np.full((len(batch_ok), features.shape[1]), np.nan, np.float32)
    whole[batch_ok] = features
    return whole


class FeatureRecorder:
    """Writes the files of all parts from one reading of the data, from the first row on.

    Args:
        parts: file and number of rows of each part of the scores, in order.
        check: called with the rows of a part before its file takes its place; raises to prevent it.
    """

    def __init__(
        self, parts: Sequence[tuple[Path, int]], check: Callable[[range], None] = lambda rows: None
    ) -> None:
        self._check = check
        self._parts = [(features_path(path), rows) for path, rows in parts]
        self._rows = sum(rows for _, rows in parts)
        self._file: FeatureFile | None = None

    def start(self) -> None:
        """Begin (again) with the first row."""
        self.close()
        self._left = iter(self._parts)
        self._end = self._free = 0

    def add(self, batch: Batch, features: NDArray[np.float32] | None) -> None:
        """Add the next batch of the data.

        Args:
            batch: B rows.
            features: (M, D) of its rows whose status is "ok"; None if there is none.
        """
        ok = np.array([status == "ok" for status in batch.status], bool)
        rows = None if features is None else of_batch(ok, features)
        start = 0
        while start < len(batch):
            if not self._free:
                self._next()
            stop = min(len(batch), start + self._free)
            if self._file is not None:
                self._file.add(None if rows is None else rows[start:stop], stop - start)
            self._free -= stop - start
            start = stop
            if not self._free:
                self._finish()

    def _next(self) -> None:
        path, rows = next(self._left)
        self._free = rows
        self._now = range(self._end, self._end + rows)
        self._end += rows
        # What a run that was stopped has already need not be written again.
        self._file = None if is_complete(path, rows) else FeatureFile(path, rows, self._rows)

    def _finish(self) -> None:
        if self._file is not None:
            self._check(self._now)
            with suppress(FileNotFoundError):  # another process finished the run and cleaned up
                self._file.commit()
            self._file = None

    def close(self) -> None:
        """Delete the file that is not finished, if there is one."""
        if self._file is not None:
            self._file.discard()
            self._file = None


class Features:
    """Features of the whole model, one row per row of a score table, read as they are used.

    Indexing by a row, a slice or an array of row numbers returns an array, as that of a memory map
    would; `np.asarray` reads all of it. Rows that could not be read hold NaN.

    Args:
        files: `.npy` files of the parts, in order.
        rows: of each part.

    Attributes:
        shape: (N, D).
        dtype: float16; float32 where a part exceeds it.

    Raises:
        ValueError: a file is missing or of another size; the text names it.
    """

    ndim = 2

    def __init__(self, files: Sequence[Path], rows: Sequence[int]) -> None:
        self._parts = [_opened(path, count) for path, count in zip(files, rows, strict=True)]
        self._ends = np.cumsum(rows)
        widths = {part.shape[1] for part in self._parts} - {0}
        if len(widths) > 1:
            raise ValueError(f"{files[0].parent} holds features of widths {sorted(widths)}")
        self.shape = (int(self._ends[-1]), max(widths, default=0))
        self.dtype: np.dtype[Any] = np.result_type(*(part.dtype for part in self._parts))

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return the features of some rows."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        index = np.asarray(rows)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        flat = np.atleast_1d(index).astype(np.int64)
        flat = np.where(flat < 0, flat + len(self), flat)
        if len(flat) and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"rows must lie in [0, {len(self)})")
        found = np.full((len(flat), self.shape[1]), np.nan, self.dtype)
        part_of = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(part_of).tolist():
            part = self._parts[number]
            if part.shape[1]:
                here = np.flatnonzero(part_of == number)
                found[here] = part[flat[here] - (self._ends[number] - len(part))]
        return found[0] if index.ndim == 0 else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows."""
        return np.asarray(self[:], dtype)


def _opened(path: Path, rows: int) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: start the same run again, which makes it anew"
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it and start the same run again"
        ) from None
    if found.ndim != 2 or len(found) != rows:
        raise ValueError(
            f"{path} has shape {found.shape}, but its part has {rows} rows: delete it and start "
            "the same run again"
        )
    return found


def as_rows(features: ArrayLike | Features) -> NDArray[Any] | Features:
    """Return features as they are where rows of them can be read alone, else as an array.

    Of a torch tensor, which NumPy cannot read in bfloat16, with a gradient or on a GPU, float32.
    """
    if hasattr(features, "detach"):
        features = features.detach().float().cpu().numpy()
    return features if isinstance(features, np.ndarray | Features) else np.asarray(features)
