"""From a path or an object that holds data to a source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch

from lc_engine.data.batch import Source
from lc_engine.data.locations import folders_of, is_remote, to_path
from lc_engine.data.readers.arrays import ArraySource, NpySource
from lc_engine.data.readers.hub import is_hub_name, load_hub
from lc_engine.data.readers.iterable import IterableSource
from lc_engine.data.readers.jsonl import SUFFIXES as JSON_LINES
from lc_engine.data.readers.paired_arrays import NpyPairs, PairedArrays
from lc_engine.data.readers.record_files import open_rows
from lc_engine.data.readers.texts import EncodesTexts, TextSource
from lc_engine.data.readers.torch_dataset import TorchDatasetSource
from lc_engine.data.targets import OWN_TARGETS
from lc_engine.data.wrap.mixture import Mixture, has_sources

if TYPE_CHECKING:
    from lc_engine.data.readers.blocks import BlockSource
    from lc_engine.data.readers.rows import RowSource, Transform
    from lc_engine.data.targets import LabelKind


@runtime_checkable
class SourceOpener(Protocol):
    """A transform that opens the data itself, as that of a language model does."""

    def open_source(self, data: Any, form: str | None = None) -> Source:
        """Open data whose format is `form`, or detected if that is None."""
        ...


class Opening(TypedDict, total=False):
    """Arguments of `open_source` that `lc_engine.score` passes on."""

    labels: str | os.PathLike[str] | None
    feature_column: str | None
    label_column: str | None
    form: str | None


def open_source(
    data: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    transform: Transform | SourceOpener | EncodesTexts | None = None,
    num_workers: int | None = None,
    feature_column: str | None = None,
    label_column: str | None = None,
    form: str | None = None,
    label_kind: LabelKind = "class",
) -> Source:
    """Open a data set for reading by ranges of rows.

    Args:
        data: one of
            a folder of images with one sub-folder per class;
            a `.npy` file of features (N, ...), with `labels`;
            a `.parquet` file or a folder of them, with a column of number lists or of images;
            a folder written by `datasets.Dataset.save_to_disk`, a `datasets.Dataset`, or the name
            of one on the Hub, with an Image column or a column of number lists;
            a pair (features, labels) or a `TensorDataset` of tensors;
            a `.safetensors` file with a matrix and its labels; `.jsonl` (`.gz`, `.zst`) with a list
            of numbers and a label per line;
            a `.tar` of images (WebDataset) or a folder of them;
            a URL that fsspec knows, of `.parquet` or `.tar`, a file or a folder;
            any other torch data set of (input, label) pairs, map-style or iterable;
            with the transform of a language model, an instruction set;
            with the `TextEncoder` of an encoder, what `record_files.open_rows` takes, with columns
            of texts and of labels;
            a mapping of names to any of these, whose rows get the column `source`;
            a source, which is returned as it is.
        labels: the `.npy` file of labels of a `.npy` file of features.
        transform: from an image (RGB, PIL) to the model's input tensor, or the `transform` of a
            language scorer; features and tensors are used as they are.
        num_workers: threads that decode images; None takes one per processor, and one for a torch
            data set whose code may not be thread-safe (see `TorchDatasetSource`).
        feature_column: the image or feature column, where the data have columns; of WebDataset the
            extension of the image; of texts the column, or two with a comma between.
        label_column: the label column, likewise.
        form: format of an instruction set; None detects it from the fields.
        label_kind: what the labels are, as the scorer's `label_kind` says; see `targets.LabelKind`.

    Returns:
        The source.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: data of an unknown kind, or that do not fit the arguments; the text says what
            to do.
    """
    if has_sources(data):
        if labels is not None:
            raise ValueError("labels goes with one .npy file: of several sources use .safetensors")
        each: Opening = {"feature_column": feature_column, "label_column": label_column}
        each["form"] = form
        sources = {}
        for name, one in data.items():
            sources[name] = open_source(
                one, transform=transform, num_workers=num_workers, label_kind=label_kind, **each
            )
        return Mixture(sources)
    if isinstance(transform, SourceOpener):
        if isinstance(data, Source):
            return data
        if labels is not None or feature_column is not None or label_column is not None:
            raise ValueError("labels and columns are for images and features, not for texts")
        return transform.open_source(data, form)
    if isinstance(transform, EncodesTexts):
        return _open_texts(data, transform, feature_column, label_column, label_kind)
    if form is not None:
        raise ValueError("form is for the instruction sets that a language model scores")
    if is_hub_name(data):
        data = load_hub(data)
    if isinstance(data, str | os.PathLike) or is_remote(data):
        path = to_path(data)
        if labels is not None and path.suffix != ".npy":
            raise ValueError(f"labels goes with a .npy file of features, not with {path}")
        source = _open_path(
            path,
            None if labels is None else Path(labels),
            transform,
            num_workers,
            feature_column,
            label_column,
            label_kind,
        )
        if not is_remote(path):
            source.folders = folders_of(path)
        return _labelled(source, label_kind)
    if labels is not None:
        raise ValueError("labels goes with a path; pass tensors as the pair (features, labels)")
    if isinstance(data, Source):
        return data
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors
    if isinstance(data, tuple):
        arrays = all(isinstance(part, torch.Tensor | np.ndarray) for part in data)
        if len(data) != 2 or not arrays:
            raise ValueError("data must be a pair (features, labels) of tensors")
        if label_kind in OWN_TARGETS:
            return _labelled(TorchDatasetSource(PairedArrays(*data)), label_kind)
        return _labelled(ArraySource(*data), label_kind)
    if type(data).__module__.partition(".")[0] == "datasets":
        from lc_engine.data.readers import hf_datasets as hf

        opened = hf.open_dataset(
            data, feature_column, label_column, transform, num_workers, label_kind
        )
        return _labelled(opened, label_kind)
    if isinstance(data, torch.utils.data.DataLoader):
        raise ValueError("data: a DataLoader yields batches, not rows; pass its .dataset")
    if isinstance(data, torch.utils.data.IterableDataset) or not hasattr(data, "__getitem__"):
        if not hasattr(data, "__iter__"):
            raise ValueError(f"data: a {type(data).__name__} is not a data set")
        return _labelled(IterableSource(data, transform, num_workers), label_kind)
    return _labelled(TorchDatasetSource(data, transform, num_workers), label_kind)


def _open_texts(
    data: Any,
    encoder: EncodesTexts,
    text_column: str | None,
    label_column: str | None,
    label_kind: LabelKind,
) -> Source:
    if isinstance(data, Source):
        return data
    return TextSource(open_rows(data), encoder, text_column, label_column, label_kind)


def _labelled(source: RowSource | BlockSource, kind: LabelKind) -> RowSource | BlockSource:
    """Return a source that reads labels of a kind.

    Raises:
        ValueError: it has classes only.
    """
    if kind in OWN_TARGETS and not source.reads_targets:
        raise ValueError(
            f"data: a {type(source).__name__} has a class per row: give votes, or what a loss of "
            "your own takes, as a torch data set of (input, target) pairs, a pair of arrays, two "
            ".npy files, or images in Parquet or a data set of datasets with a column of numbers"
        )
    source.label_kind = kind
    return source


def _open_path(
    path: Path,
    labels: Path | None,
    transform: Transform | None,
    num_workers: int | None,
    feature_column: str | None,
    label_column: str | None,
    label_kind: LabelKind,
) -> RowSource | BlockSource:
    if not path.exists():
        raise FileNotFoundError(f"data: {path} does not exist")
    if is_remote(path):
        _check_remote(path)
    if path.suffix == ".npy":
        if labels is None:
            raise ValueError(f"{path} holds features only: pass the .npy file of labels too")
        return NpyPairs(path, labels) if label_kind in OWN_TARGETS else NpySource(path, labels)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        from lc_engine.data.readers.parquet_images import open_parquet

        return open_parquet(path, feature_column, label_column, transform, num_workers, label_kind)
    if path.suffix == ".safetensors":
        from lc_engine.data.readers.safetensors import SafetensorsSource

        return SafetensorsSource(path, feature_column, label_column)
    if path.name.lower().endswith(JSON_LINES):
        from lc_engine.data.readers.jsonl_features import JsonLinesSource

        return JsonLinesSource(path, feature_column, label_column)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        from lc_engine.data.readers.webdataset import WebDatasetSource

        return WebDatasetSource(path, feature_column, label_column, transform, num_workers)
    if path.is_file():
        raise ValueError(
            f"data: {path} is of an unknown kind; known are .npy, .parquet, .safetensors, .jsonl, "
            ".tar, an image folder and a folder saved by datasets; texts need a causal language "
            "model"
        )
    from lc_engine.data.readers import hf_datasets as hf

    if hf.is_saved(path):
        dataset = hf.load(path)
        return hf.open_dataset(
            dataset, feature_column, label_column, transform, num_workers, label_kind
        )
    from lc_engine.data.readers.images import ImageFolderSource

    return ImageFolderSource(path, transform, num_workers, flat=label_kind == "none")


def _check_remote(path: Path) -> None:
    names = [path.name] if path.is_file() else [entry.name for entry in path.iterdir()]
    if not any(name.endswith((".parquet", ".tar")) for name in names):
        raise ValueError(f"data: {path}: of URLs only .parquet and .tar are read; copy it here")
