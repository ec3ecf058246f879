"""What README.md and docs/how-it-works.md show runs as it stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import lc_engine as lc
from helpers.pages import commands, programs
from lc_engine import ops
from lc_engine.cli.main import run
from lc_engine.demo.digits import write_folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `photos/`: two real digits of each class, as the demo leaves them."""
    folder = tmp_path_factory.mktemp("readme")
    write_folders(folder / "images", train=2, test=0, seed=0)
    (folder / "images" / "train").rename(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def python_ran(folder):
    """The names that the README's Python lines leave behind."""
    (program,) = programs("README.md")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(program, names)
    return names


def test_the_python_lines_score_and_select(python_ran, folder, monkeypatch):
    monkeypatch.chdir(folder)
    scores, keep = python_ran["scores"], python_ran["keep"]
    assert len(scores) == 20
    assert set(scores.column("status")) == {"ok"}
    assert len(keep) == 2
    assert all((folder / "photos" / name).is_file() for name in keep)
    stored = lc.ScoreTable.read(folder / "scores")
    np.testing.assert_array_equal(stored.column("lc"), scores.column("lc"))


def test_the_command_lines_do_the_same(python_ran, folder, monkeypatch, capsys):
    """In the reader's order: the run that Python left is taken up, so its settings are the same."""
    monkeypatch.chdir(folder)
    lines = [words[1:] for words in commands("README.md") if words[:1] == ["lc-engine"]]
    lines = [words for words in lines if words[0] in ("score", "select")]
    assert [words[0] for words in lines] == ["score", "select"]
    for words in lines:
        assert run(words) == 0, capsys.readouterr().err
    np.testing.assert_array_equal(np.load(folder / "subset.npy"), python_ran["keep"])


def test_the_first_command_prunes_the_photos(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = next(words for words in commands("README.md") if words[:2] == ["lc-engine", "prune"])
    assert run(words[1:]) == 0, capsys.readouterr().err
    kept = [path for path in (folder / "pruned" / "data").rglob("*") if path.is_file()]
    assert len(kept) == 2
    assert all(path.samefile(folder / "photos" / path.parent.name / path.name) for path in kept)


def test_the_plan_of_an_operator_scores_real_features():
    (program,) = programs("docs/how-it-works.md")
    x, y = load_digits(return_X_y=True)
    features = torch.from_numpy(x / 16).float()
    labels = torch.from_numpy(y)
    weight = torch.stack([features[labels == c].mean(0) for c in range(10)])
    bias = -weight.square().sum(1) / 2
    path = lc.LearningPath.gauss(8)
    thresholds = lc.Masking(weights="head").thresholds({"weight": weight}, path)[:, 0]
    names = {
        "features": features,
        "labels": labels,
        "weight": weight,
        "bias": bias,
        "thresholds": thresholds,
    }
    exec(program, names)
    want = ops.linear_confidence(
        features.double(), weight.double(), bias.double(), labels, thresholds, backend="reference"
    )
    assert names["log_probs"].shape == (8, len(labels))
    torch.testing.assert_close(names["lc"].double(), want.lc.double(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(names["loss"].double(), want.loss.double(), atol=1e-5, rtol=1e-5)
