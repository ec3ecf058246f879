"""The rows of a data set as they are stored: opened without a model, and written again."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine.data.readers.arrays import NpySource
from lc_engine.data.readers.delimited import DelimitedRecords
from lc_engine.data.readers.images import ImageFolderSource
from lc_engine.data.readers.jsonl import JsonLines
from lc_engine.data.readers.jsonl_features import JsonLinesSource
from lc_engine.data.readers.paired_arrays import NpyPairs
from lc_engine.data.readers.parquet import ParquetSource
from lc_engine.data.readers.parquet_images import ParquetImageSource
from lc_engine.data.readers.records import DatasetRecords, ListRecords, ParquetRecords
from lc_engine.data.readers.safetensors import SafetensorsSource
from lc_engine.data.readers.webdataset import WebDatasetSource
from lc_engine.data.wrap.mixture import Mixture, has_sources
from lc_engine.data.writers.arrays import copy_npy, copy_safetensors
from lc_engine.data.writers.delimited import copy_delimited
from lc_engine.data.writers.image_files import link_files
from lc_engine.data.writers.json_rows import copy_lines, copy_list
from lc_engine.data.writers.parquet import copy_parquet, row_counts, within
from lc_engine.data.writers.tars import copy_samples
from lc_engine.language.dataset_info import RenamedRecords, copy_entries
from lc_engine.language.images.files import is_image_file
from lc_engine.language.images.source import image_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lc_engine.data.batch import Source
    from lc_engine.data.readers.records import Records

    Stored = Source | Records | Mixture

_log = logging.getLogger(__name__)


def open_stored(data: Any, *, texts: bool, **opening: Any) -> Stored:
    """Open the rows of a data set without decoding or tokenizing any.

    Args:
        data: what was scored; a source of texts gives its records.
        texts: whether a language model scored it.
        **opening: of `open_source`, for the columns of images and features.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: data of an unknown kind.
    """
    if isinstance(data, Mixture) or has_sources(data):
        named = data.sources if isinstance(data, Mixture) else data
        return Mixture(
            {name: open_stored(one, texts=texts, **opening) for name, one in named.items()}
        )
    if hasattr(data, "records") and hasattr(data, "encoder"):
        records: Records = data.records
        return records
    if texts:
        from lc_engine.language.source import open_records

        return open_records(data)
    from lc_engine.data.open import open_source

    return open_source(data, **opening)


def check_is_scored(stored: Stored, digest: str | None, rows: int) -> None:
    """Refuse data that are not those that were scored.

    Raises:
        ValueError: another number of rows or another digest.
    """
    if len(stored) != rows:
        raise ValueError(f"data: there are {len(stored)} rows, but scores of {rows}: score them")
    if digest is not None and stored.digest() != digest:
        raise ValueError("data: they changed since they were scored: score them again")


def write_rows(stored: Stored, data: Any, kept: NDArray[np.int64], out: Path) -> dict[str, Any]:
    """Write some rows in the form of the data.

    Args:
        stored: the rows.
        data: what was opened: a path, or a `datasets.Dataset`.
        kept: row numbers, ascending.
        out: an empty folder. A folder of data fills it, a file gets its own name in it.

    Several sources go to a folder each, one without kept rows to none.

    Returns:
        The kind, and what else a person should know, as JSON values.

    Raises:
        ValueError: data in memory, which have no form on disk.
    """
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(stored, Mixture):
        given = data if has_sources(data) else stored.sources
        each = {
            name: write_rows(stored.sources[name], given[name], rows, out / name)
            | {"rows": len(rows)}
            for name, rows in stored.rows_of(kept)
            if len(rows)
        }
        return {"kind": "sources", "sources": each}
    if isinstance(stored, ImageFolderSource):
        copied = link_files(stored.root, (stored.paths[row] for row in kept.tolist()), out)
        return {"kind": "image_folder", "linked": len(kept) - copied, "copied": copied}
    if isinstance(stored, WebDatasetSource):
        for path, keys in stored.samples_of(kept):
            copy_samples(path, keys, out / path.name)
        return {"kind": "webdataset"}
    if isinstance(stored, ParquetSource | ParquetImageSource):
        return _write_parquet(stored.files.paths, kept, out)
    if isinstance(stored, ParquetRecords):
        return _write_parquet(stored.paths, kept, out)
    if isinstance(stored, RenamedRecords) and isinstance(data, str | Path):
        copy_entries(Path(data), out)
        stored = stored.stored
    if isinstance(stored, JsonLinesSource):
        stored = stored.records
    if isinstance(stored, JsonLines):
        copy_lines(stored.path, kept, out / stored.path.name)
        return {"kind": "jsonl", **_link_images(stored, data, kept, out)}
    if isinstance(stored, DelimitedRecords) and isinstance(data, str | Path):
        copy_delimited(Path(data), kept, out / Path(data).name)
        return {"kind": "csv", **_link_images(stored, data, kept, out)}
    if isinstance(stored, ListRecords) and isinstance(data, str | Path):
        copy_list(Path(data), kept, out / Path(data).name)
        return {"kind": "json", **_link_images(stored, data, kept, out)}
    if isinstance(stored, NpySource | NpyPairs):
        for path in stored.paths:
            copy_npy(path, kept, out / path.name)
        return {"kind": "npy"}
    if isinstance(stored, SafetensorsSource):
        copy_safetensors(stored.path, kept, len(stored), out / stored.path.name)
        return {"kind": "safetensors"}
    return _write_dataset(stored, data, kept, out)


def _link_images(stored: Records, data: Any, kept: NDArray[np.int64], out: Path) -> dict[str, int]:
    """Link the image files that kept rows name by paths relative to the file of the rows.

    Absolute paths hold as they are. A path out of the folder of the data cannot be kept.
    """
    if not isinstance(data, str | Path):
        return {}
    wanted, folder = set(kept.tolist()), stored.folder
    named = {
        path
        for row, record in enumerate(stored.read(0, len(stored)))
        if row in wanted
        for path in image_paths(record.fields)
        if not Path(path).is_absolute() and is_image_file(path, folder)
    }
    inside = sorted({os.path.normpath(path) for path in named})
    outside = [path for path in inside if path.startswith(os.pardir)]
    # What is there already are the kept rows: a row may name any file as its image.
    inside = [p for p in inside if not p.startswith(os.pardir) and not (out / p).exists()]
    if outside:
        _log.warning(
            "%d images lie outside %s, such as %s: the paths to them do not hold in %s",
            len(outside),
            folder,
            outside[0],
            out,
        )
    if not inside:
        return {}
    copied = link_files(folder, inside, out)
    return {"images_linked": len(inside) - copied, "images_copied": copied}


def _write_parquet(paths: Sequence[Path], kept: NDArray[np.int64], out: Path) -> dict[str, Any]:
    """Write a file for each file of the data that has rows to keep."""
    start = 0
    for path, rows in zip(paths, row_counts(paths), strict=True):
        here = within(kept, start, start + rows)
        start += rows
        if len(here):
            copy_parquet([(path, here)], out / path.name)
    return {"kind": "parquet"}


def _write_dataset(stored: Stored, data: Any, kept: NDArray[np.int64], out: Path) -> dict[str, Any]:
    from lc_engine.data.readers import hf_datasets as hf
    from lc_engine.data.writers.saved_dataset import save_rows

    if not isinstance(stored, DatasetRecords | hf.HFImageSource | hf.HFFeatureSource):
        raise ValueError(
            f"data: a {type(stored).__name__} is in memory and has no form on disk: pass the path "
            "of a file or folder, or a datasets.Dataset; of what is in memory, select returns ids"
        )
    is_path = isinstance(data, str | Path)
    save_rows(hf.load(Path(data)) if is_path else data, kept, out)
    return {"kind": "datasets"}


def write_new_folder(stored: Stored, data: Any, kept: NDArray[np.int64], out: Path) -> None:
    """Write some rows to a folder that appears when all of it is there; see `write_rows`.

    Raises:
        ValueError: there is something at `out`.
    """
    if out.exists():
        raise ValueError(f"--write {out} exists: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        write_rows(stored, data, kept, temporary)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
