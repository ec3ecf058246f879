"""Rows that name image files: which files go with them."""

from __future__ import annotations

import json

import numpy as np

from lc_engine.language.source import open_records
from lc_engine.pruning.rows import write_rows


def test_images_that_kept_rows_name_go_with_them(tmp_path, caplog):
    folder = tmp_path / "data"
    (folder / "photos").mkdir(parents=True)
    for name in ("photos/a.png", "photos/b.png", "photos/c.png", "../outside.png"):
        (folder / name).write_bytes(name.encode())
    named = ["photos/a.png", "photos/b.png", "photos/./c.png", "../outside.png", "rows.jsonl"]
    named.append("QUJD" * 3000)  # base64 without data:, too long for the name of a file
    rows = [{"messages": [], "image": name} for name in named]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "pruned"
    written = write_rows(open_records(data), data, np.array([0, 2, 3, 4, 5]), out)
    assert written == {"kind": "jsonl", "images_linked": 2, "images_copied": 0}
    assert sorted(path.name for path in out.rglob("*.png")) == ["a.png", "c.png"]
    # A row that names the file of the rows as its image does not bring the others back.
    assert len((out / "rows.jsonl").read_text().splitlines()) == 5
    assert "1 images lie outside" in caplog.text
