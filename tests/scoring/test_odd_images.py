"""A run over image files with odd names and contents: the same bytes each time, ids in lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.images import encode, to_tensor
from lc_engine.data.ids import name_of_id, read_id_lines, to_id_lines
from lc_engine.data.open import open_source

AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from scoring.test_odd_images import run
run(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def run(root, out):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(90, 4), nn.ReLU(), nn.Linear(4, 2))
    return lc.score(lc.Scorer(model), open_source(root, transform=to_tensor), out)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/0.png", "a/two\nlines.png", os.fsdecode(b"b/caf\xe9.png"), "b/ x\\n.jfif"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)))
    (tmp_path / "set" / "a" / "page.jpg").write_text("<html>moved</html>")
    (tmp_path / "set" / os.fsdecode(b"gone\xe9")).symlink_to("nowhere")
    return tmp_path / "set"


def test_parts_are_the_same_in_every_process(root, tmp_path):
    run(root, tmp_path / "here")
    arguments = [str(Path(__file__).parents[1]), str(root), str(tmp_path / "there")]
    subprocess.run([sys.executable, "-c", AGAIN, *arguments], check=True, timeout=100)
    for path in (tmp_path / "here").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()
    manifest = json.loads((tmp_path / "here" / "_manifest.json").read_text(encoding="utf-8"))
    assert r"gone\udce9" in json.dumps(manifest).replace(r"\\", "\\")


def test_a_list_of_ids_leads_back_to_the_files(root, tmp_path):
    table = run(root, tmp_path / "out")
    assert table.status_counts() == {"ok": 4, "unreadable": 1}
    (tmp_path / "ids.txt").write_text(to_id_lines(table.column("id")), encoding="utf-8")
    ids = read_id_lines(tmp_path / "ids.txt")
    assert ids == table.column("id").tolist()
    files = {path for path in root.rglob("*") if path.is_file()}
    assert {root / name_of_id(row) for row in ids} == files
