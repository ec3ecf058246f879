"""The pages of docs/start run from top to bottom, as a reader types them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import tiny_language_model as tiny
from helpers.pages import steps
from lc_engine.cli.main import run
from lc_engine.demo.digits import write_folders

pytestmark = pytest.mark.slow


def follow(page, capsys):
    """Run a page, in the working directory; return the names that its programs leave."""
    names = {}
    for step in steps(page):
        if isinstance(step, str):
            exec(step, names)
        elif step[0] == "lc-engine":
            assert run(step[1:]) == 0, capsys.readouterr().err
    return names


def test_from_images_to_a_trained_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path / "images", train=20, test=0, seed=0)
    (tmp_path / "images" / "train").rename(tmp_path / "photos")
    wrong = next(path for path in (tmp_path / "photos" / "3").iterdir())
    (tmp_path / "wrong.txt").write_text(f"3/{wrong.name}\n", encoding="utf-8")
    names = follow("docs/start/images.md", capsys)
    assert len(names["data"]) == 20  # a tenth of 200
    assert np.isfinite(float(names["loss"].detach()))
    assert not (tmp_path / "pruned" / "data" / "3" / wrong.name).exists()


def test_from_conversations_to_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.model().save_pretrained(tmp_path / "smollm2")
    tiny.tokenizer().save_pretrained(tmp_path / "smollm2")
    rows = [{"instruction": f"What is {n} and {n}?", "output": f"{2 * n}."} for n in range(20)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = follow("docs/start/instructions.md", capsys)
    kept = (tmp_path / "pruned" / "data" / "chat.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(kept) == len(names["data"]) == 4
    assert set(kept) < set(lines)


def test_from_features_to_a_probe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = follow("docs/start/features.md", capsys)
    assert len(names["kept"]) == 180
    assert names["probe"].score(names["features"], names["labels"]) > 0.8
