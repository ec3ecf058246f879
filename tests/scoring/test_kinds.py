"""Every kind of data through the command line, in every way that a job runs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import lc_engine as lc
from helpers import tiny_encoder as tiny
from helpers import tiny_image_text
from helpers import tiny_vision as vision
from helpers.through_the_command_line import whole_job
from lc_engine.cli import main as cli

pytestmark = pytest.mark.slow

MODULE = """
import math
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))

def gauss(outputs, targets):
    error = (outputs[:, :2] - targets).square().sum(1)
    return error / 2 + math.log(2 * math.pi)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module `own_kind` with a model and a loss."""
    (tmp_path / "own_kind.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_kind", None)


def arrays(folder, targets):
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((20, 6)).astype(np.float32))
    np.save(folder / "y.npy", targets(rng))
    return ("--data", str(folder / "x.npy"), "--labels", str(folder / "y.npy"))


def test_any_loss(module, tmp_path, capsys):
    targets = arrays(tmp_path, lambda rng: rng.standard_normal((20, 2)))
    y = np.load(tmp_path / "y.npy")
    y[3] = np.nan
    np.save(tmp_path / "y.npy", y)
    job = ("--model", "own_kind:model", "--loss", "own_kind:gauss", *targets)
    table = whole_job(tmp_path / "out", job, capsys, module, code=3)
    assert table.status_counts() == {"ok": 19, "non_finite": 1}
    assert table.metadata["head"]["loss"] == "own_kind:gauss"


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("--data", str(path))


def test_texts_under_a_classifier(tmp_path, capsys):
    folder = tiny.save(tmp_path / "model", "Bert", "ForSequenceClassification", num_labels=3)
    rows = [{"text": text, "label": i % 3} for i, text in enumerate(tiny.texts(20))]
    rows[5]["text"] = None
    job = ("--model", folder, "--head", "linear", *lines(tmp_path / "rows.jsonl", rows))
    table = whole_job(tmp_path / "out", job, capsys, code=3)
    assert table.status_counts() == {"ok": 19, "unreadable": 1}
    kept = (tmp_path / "out" / "kept" / "data" / "rows.jsonl").read_text().splitlines()
    assert all(json.loads(line) in rows for line in kept)


def test_pairs_of_texts_under_class_means(tmp_path, capsys):
    folder = tiny.save(tmp_path / "model", "Bert", "Model")
    names, one, two = ("no", "yes"), tiny.texts(20), tiny.texts(20, seed=1)
    rows = [(names[i % 2], *pair) for i, pair in enumerate(zip(one, two, strict=True))]
    text = "answer,a,b\n" + "".join(f"{','.join(row)}\n" for row in rows)
    (tmp_path / "rows.csv").write_text(text)
    data = ("--data", str(tmp_path / "rows.csv"), "--feature-column", "a,b")
    job = ("--model", folder, "--text-pooling", "mean", *data, "--label-column", "answer")
    table = whole_job(tmp_path / "out", job, capsys)
    assert table.column("label").tolist() == [0, 1] * 10
    page = (tmp_path / "out" / "page.html").read_text()
    assert one[0] in page


def test_words_under_a_token_classifier(tmp_path, capsys):
    folder = tiny.save(tmp_path / "model", "Bert", "ForTokenClassification", num_labels=3)
    words = [text.split() for text in tiny.texts(20)]
    rows = [{"tokens": one, "ner_tags": [i % 3 for i in range(len(one))]} for one in words]
    data = lines(tmp_path / "rows.jsonl", rows)
    job = ("--model", folder, "--loss", "lc_engine.heads.loss:token_nll", *data)
    table = whole_job(tmp_path / "out", job, capsys)
    assert table.status_counts() == {"ok": 20}


def test_images_under_a_model_of_hugging_face(tmp_path, capsys):
    folder = vision.save(tmp_path / "model", "ViT", "ForImageClassification", num_labels=3)
    vision.pictures(tmp_path / "photos", 3, 6)
    job = ("--model", folder, "--head", "linear", "--data", str(tmp_path / "photos"))
    table = whole_job(tmp_path / "out", job, capsys)
    assert table.status_counts() == {"ok": 18}


def test_images_under_prompts(tmp_path, capsys):
    folder = vision.save(tmp_path / "model", "CLIP", "Model")
    vision.pictures(tmp_path / "photos", 3, 6)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\nthe dog\na red tree\n")
    where = ("--data", str(tmp_path / "photos"), "--prompts", str(prompts))
    job = ("--model", folder, *where, "--label-kind", "none")
    table = whole_job(tmp_path / "out", job, capsys)
    assert np.isfinite(table.column("agreement")).all()


def test_votes(module, tmp_path, capsys):
    targets = arrays(tmp_path, lambda rng: rng.integers(1, 9, (20, 3)))
    job = ("--model", "own_kind:model", "--head", "linear", "--label-kind", "soft", *targets)
    table = whole_job(tmp_path / "out", job, capsys, module)
    assert (table.column("label") == np.load(tmp_path / "y.npy").argmax(1)).all()


def test_no_labels(module, tmp_path, capsys):
    targets = arrays(tmp_path, lambda rng: np.zeros(20, np.int64))
    job = ("--model", "own_kind:model", "--head", "linear", "--label-kind", "none", *targets)
    table = whole_job(tmp_path / "out", job, capsys, module)
    assert (table.column("label") == -1).all()
    assert ((table.column("agreement") >= 0) & (table.column("agreement") <= 1)).all()


def test_conversations_with_images(tmp_path, capsys):
    folder = tiny_image_text.save(tmp_path / "model", "llava")
    (tmp_path / "set" / "pictures").mkdir(parents=True)
    rows = []
    for i in range(14):
        name = f"pictures/{i}.png"
        tiny_image_text.picture(i).save(tmp_path / "set" / name)
        turns = [("human", f"<image>\nhello in the {i}"), ("gpt", f"it is {i * 'he'} {i}")]
        said = [{"from": role, "value": text} for role, text in turns]
        rows.append({"image": name, "conversations": said})
    (tmp_path / "set" / "pictures" / "5.png").write_bytes(b"no image")
    data = lines(tmp_path / "set" / "rows.jsonl", rows)
    model = ("--model", folder, "--path", "explicit:1,0.6", "--dtype", "float32")
    table = whole_job(tmp_path / "out", (*model, *data), capsys, code=3)
    assert table.status_counts() == {"ok": 13, "bad_image": 1}
    assert "pictures/5.png" in table.column("detail")[5]
    page = (tmp_path / "out" / "page.html").read_text()
    assert "data:image/webp;base64," in page
    assert "[image]" in page
    kept = tmp_path / "out" / "kept" / "data"
    pruned = [json.loads(line) for line in (kept / "rows.jsonl").read_text().splitlines()]
    assert all(row in rows for row in pruned)
    images = {str(path.relative_to(kept)) for path in kept.rglob("*.png")}
    assert images == {row["image"] for row in pruned}
    again = ("--data", str(kept / "rows.jsonl"), "--out", str(tmp_path / "again"))
    assert cli.run(["score", *model, *again]) == 0
    positions = np.load(tmp_path / "out" / "kept" / "positions.npy")
    found = lc.ScoreTable.read(tmp_path / "again").column("lc")
    np.testing.assert_allclose(found, table.column("lc")[positions], atol=1e-6)
