"""Open whatever holds the data: one function from a path or an object to a source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.data.arrays import ArraySource, NpySource
from lc_engine.data.batch import Source
from lc_engine.data.torch_dataset import DatasetSource

if TYPE_CHECKING:
    from lc_engine.data.rows import Transform


def open_source(
    data: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    transform: Transform | None = None,
    num_workers: int | None = None,
    feature_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Open a labelled data set for reading by ranges of rows.

    Args:
        data: one of
            a folder of pictures with one sub-folder per class;
            a `.npy` file of features (N, ...), with `labels`;
            a `.parquet` file or a folder of them, with a column of number lists;
            a folder written by `datasets.Dataset.save_to_disk`, or a `datasets.Dataset`, with an
            Image column or a column of number lists;
            a pair (features, labels) or a `TensorDataset` of tensors;
            any other map-style torch data set of (input, label) pairs;
            a source, which is returned as it is.
        labels: the `.npy` file of integer labels that belongs to a `.npy` file of features.
        transform: turns a picture (RGB, PIL) into the model's input tensor; features and tensors
            are used as they are.
        num_workers: threads that decode pictures; None takes one per processor, and one for a
            torch data set whose code may not stand several (see `DatasetSource`).
        feature_column: of Parquet or `datasets`: the picture or feature column.
        label_column: of Parquet or `datasets`.

    Returns:
        The source.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: data of an unknown kind, or whose form does not fit; the text says what to do.
    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if labels is not None and path.suffix != ".npy":
            raise ValueError(f"labels goes with a .npy file of features, not with {path}")
        return _open_path(
            path,
            None if labels is None else Path(labels),
            transform,
            num_workers,
            feature_column,
            label_column,
        )
    if labels is not None:
        raise ValueError("labels goes with a path; give tensors as the pair (features, labels)")
    if isinstance(data, Source):
        return data
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors
    if isinstance(data, tuple):
        arrays = all(isinstance(part, torch.Tensor | np.ndarray) for part in data)
        if len(data) != 2 or not arrays:
            raise ValueError("data must be a pair (features, labels) of tensors")
        return ArraySource(*data)
    if type(data).__module__.partition(".")[0] == "datasets":
        from lc_engine.data import hf

        return hf.open_dataset(data, feature_column, label_column, transform, num_workers)
    return DatasetSource(data, transform, num_workers)


def _open_path(
    path: Path,
    labels: Path | None,
    transform: Transform | None,
    num_workers: int | None,
    feature_column: str | None,
    label_column: str | None,
) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"data: {path} does not exist")
    if path.suffix == ".npy":
        if labels is None:
            raise ValueError(f"{path} holds features only: give the .npy file of labels too")
        return NpySource(path, labels)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        from lc_engine.data.parquet import ParquetSource

        return ParquetSource(path, feature_column, label_column)
    if path.is_file():
        raise ValueError(
            f"data: {path} is of an unknown kind; known are .npy, .parquet, an image folder and a "
            "folder saved by datasets"
        )
    from lc_engine.data import hf

    if hf.is_saved(path):
        dataset = hf.load(path)
        return hf.open_dataset(dataset, feature_column, label_column, transform, num_workers)
    from lc_engine.data.images import ImageFolder

    return ImageFolder(path, transform, num_workers)
