"""The same small data set of 12 rows in every kind of file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from helpers.images import encode, pack, to_tensor
from lc_engine.data.open import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from lc_engine.data.batch import Source

ROWS, CLASSES = 12, 3
FEATURES = ("npy", "parquet", "safetensors", "jsonl")
IMAGES = ("folder", "tar", "parquet_images")


def write(kind: str, folder: Path, seed: int = 0, width: int = 6) -> None:
    """Write the data below a folder; another seed gives other values in files of the same size."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, width)).astype(np.float32)
    y = np.arange(ROWS) % CLASSES
    pictures = [encode(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), "BMP") for _ in range(ROWS)]
    if kind == "npy":
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
    elif kind == "parquet":
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), width)
        table = pa.table({"x": lists, "label": y})
        parquet.write_table(table, folder / "x.parquet", row_group_size=5, compression="none")
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file({"x": x, "label": y}, folder / "x.safetensors")
    elif kind == "jsonl":
        rows = [{"x": row.round(3).tolist(), "label": int(c)} for row, c in zip(x, y, strict=True)]
        lines = (json.dumps(row) for row in rows)
        (folder / "x.jsonl").write_text("".join(f"{line:200}\n" for line in lines))
    elif kind == "folder":
        for row, picture in enumerate(pictures):
            path = folder / "images" / str(row % CLASSES) / f"{row:02d}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
    elif kind == "tar":
        pairs = [(f"{row:02d}.bmp", picture) for row, picture in enumerate(pictures)]
        labels = [(f"{row:02d}.cls", str(row % CLASSES).encode()) for row in range(ROWS)]
        pack(folder / "x.tar", sorted(pairs + labels))
    else:
        table = pa.table({"image": pa.array(pictures, pa.binary()), "label": y})
        parquet.write_table(table, folder / "i.parquet", row_group_size=5, compression="none")


PLACES = {
    "npy": "x.npy",
    "parquet": "x.parquet",
    "safetensors": "x.safetensors",
    "jsonl": "x.jsonl",
    "folder": "images",
    "tar": "x.tar",
    "parquet_images": "i.parquet",
}


def opened(kind: str, folder: Path, **options: Any) -> Source:
    """Open what `write` wrote."""
    if kind == "npy":
        options["labels"] = folder / "y.npy"
    if kind in IMAGES:
        options["transform"] = to_tensor
    return open_source(folder / PLACES[kind], **options)
