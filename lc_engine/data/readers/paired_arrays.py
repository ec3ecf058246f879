"""Arrays of inputs and of targets of any shape: in memory, and two `.npy` files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lc_engine.data.identity import FileStates
from lc_engine.data.readers.arrays import open_npy, read_rows
from lc_engine.data.readers.torch_dataset import TorchDatasetSource

if TYPE_CHECKING:
    from pathlib import Path


class PairedArrays:
    """A torch data set of the rows of two arrays or tensors.

    Args:
        inputs: (N, …).
        targets: (N, …).

    Raises:
        ValueError: different lengths.
    """

    def __init__(self, inputs: Any, targets: Any) -> None:
        if len(inputs) != len(targets):
            raise ValueError(
                f"data: there are {len(inputs)} rows of inputs, but {len(targets)} of targets"
            )
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        """Return N."""
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        """Return one row, as copies."""
        return self.inputs[row : row + 1][0], self.targets[row : row + 1][0]


class NpyPairs(TorchDatasetSource):
    """`inputs.npy` (N, …) with `targets.npy` (N, …), read row by row, never whole.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: not a `.npy` file, pickled objects, another memory order, different lengths.
    """

    def __init__(self, inputs: Path, targets: Path) -> None:
        states = FileStates.of((inputs, targets), listed=False)
        mapped = [_Mapped(path, open_npy(path)) for path in (inputs, targets)]
        super().__init__(PairedArrays(*mapped))
        self.paths, self.states = (inputs, targets), states

    def digest(self) -> str:
        """Hash the name, size and modification time of both files."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the file names and the rows."""
        files = [path.name for path in self.paths]
        return {"kind": "npy", "files": files, "rows": len(self)}


class _Mapped:
    """An array on disk, of which rows are read into fresh memory."""

    def __init__(self, path: Path, mapped: Any) -> None:
        self._path, self._mapped = path, mapped

    def __len__(self) -> int:
        return len(self._mapped)

    def __getitem__(self, rows: slice) -> Any:
        return read_rows(self._path, self._mapped, range(*rows.indices(len(self))))
