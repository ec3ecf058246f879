"""`--out` never replaces or joins what a command reads, or another tool's files."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import lc_engine as lc
from helpers.feature_run import WIDTH, run, scorer, write_features
from helpers.images import to_tensor
from helpers.kinds_of_data import opened, write
from helpers.score_tables import random_table
from lc_engine.cli import main as cli
from lc_engine.data.locations import check_outside
from lc_engine.data.open import open_source
from lc_engine.data.wrap.subset import Subset
from lc_engine.integrations.files import write_subset
from lc_engine.language.source import InstructionSource, open_records


@pytest.fixture
def folder(tmp_path):
    """Features, the checkpoint of a head, and a folder of Parquet."""
    from safetensors.torch import save_file

    write_features(tmp_path)
    head = scorer().model.state_dict()
    save_file({f"fc.{name}": value for name, value in head.items()}, tmp_path / "head.safetensors")
    (tmp_path / "set").mkdir()
    shutil.copy(tmp_path / "x.parquet", tmp_path / "set" / "x.parquet")
    return tmp_path


def score(folder, data, out):
    head = f"--model={folder / 'head.safetensors'}"
    return cli.run(["score", head, f"--data={folder / data}", f"--out={folder / out}"])


@pytest.mark.parametrize("text", ['{"model_type": "llama", "version": 1}', "no JSON", "[]"])
def test_a_folder_with_the_config_of_another_tool_is_refused_untouched(folder, capsys, text):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(text)
    assert score(folder, "x.parquet", "model") == 2
    assert "config.json that lc-engine did not write" in capsys.readouterr().err
    assert [path.name for path in (folder / "model").iterdir()] == ["config.json"]
    assert (folder / "model" / "config.json").read_text() == text


def test_the_config_of_an_earlier_run_is_replaced(folder):
    assert [score(folder, "x.parquet", "out") for _ in range(2)] == [3, 3]


@pytest.mark.parametrize("out", ["set", "set/scores"])
def test_a_folder_inside_the_data_is_refused(folder, capsys, out):
    assert score(folder, "set", out) == 2
    assert "choose a path outside that folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is inside the data"):
        lc.score(scorer(), folder / "set", folder / out)
    assert [path.name for path in (folder / "set").iterdir()] == ["x.parquet"]


def test_a_link_into_the_data_is_inside_them(folder):
    (folder / "link").symlink_to(folder / "set")
    with pytest.raises(ValueError, match="is inside the data"):
        lc.score(scorer(), folder / "set", folder / "link" / "scores")


def ways_to_give(folder):
    """Name each kind of data that tells its folder, with that folder."""
    datasets = pytest.importorskip("datasets")
    torchvision = pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, WIDTH)).astype(np.float32), [0, 1] * 4
    datasets.Dataset.from_dict({"x": x.tolist(), "label": y}).save_to_disk(folder / "saved")
    saved = datasets.load_from_disk(folder / "saved")
    write("folder", folder)
    tree = torchvision.datasets.ImageFolder(folder / "images")
    source = open_source(folder / "set")
    return {
        "dataset": (saved, "saved"),
        "rows of a dataset": (saved.select(range(5)), "saved"),
        "torchvision": (tree, "images"),
        "torch subset": (torch.utils.data.Subset(tree, [1, 2]), "images"),
        "source": (source, "set"),
        "source of a dataset": (open_source(saved), "saved"),
        "saved source": (open_source(folder / "saved"), "saved"),
        "image source": (opened("folder", folder), "images"),
        "torchvision source": (open_source(tree, transform=to_tensor), "images"),
        "subset of a source": (Subset.first(source, 3), "set"),
        "list of paths": ([folder / "x.parquet", str(folder / "set")], "set"),
    }


def test_a_folder_inside_data_that_are_no_path_is_refused(folder):
    for kind, (data, place) in ways_to_give(folder).items():
        before = sorted((folder / place).rglob("*"))
        for out in (folder / place, folder / place / "scores"):
            with pytest.raises(ValueError, match="is inside the data"):
                lc.score(scorer(), data, out)
            with pytest.raises(ValueError, match="is inside the data"):
                lc.prune(scorer(), data, 0.5, out)
        assert sorted((folder / place).rglob("*")) == before, kind
        check_outside(folder / "scores", data)
        check_outside(folder / f"{place} 2", data)


def test_texts_know_their_folder_too(folder):
    datasets = pytest.importorskip("datasets")
    rows = [{"instruction": "a", "output": "b"}] * 3
    datasets.Dataset.from_list(rows).save_to_disk(folder / "texts")
    for data in (folder / "texts", datasets.load_from_disk(folder / "texts")):
        source = InstructionSource(open_records(data), encoder=None)
        with pytest.raises(ValueError, match="is inside the data"):
            check_outside(folder / "texts" / "scores", source)


def test_data_without_a_folder_of_their_own_may_lie_beside_the_scores(folder):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_dict({"x": [[0.0]] * 4, "label": [0, 1] * 2})
    saved.save_to_disk(folder / "saved")
    shutil.copy(next((folder / "saved").glob("*.arrow")), folder / "alone.arrow")
    for data in (
        saved,
        datasets.Dataset.from_file(str(folder / "alone.arrow")),
        open_source(folder / "x.parquet"),
        [folder / "x.parquet"],
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)),
        "s3://bucket/set",
    ):
        check_outside(folder / "scores", data)


def test_a_subset_inside_the_data_is_refused(folder):
    with pytest.raises(ValueError, match="is inside the data"):
        write_subset(folder / "set", np.arange(3), folder / "set" / "subset.parquet")


def test_select_does_not_replace_what_it_reads(folder, capsys):
    random_table().write(folder / "scores.parquet")
    np.save(folder / "features.npy", np.zeros((20, 2), np.float32))
    run(folder, folder / "out")
    before = {path: path.read_bytes() for path in folder.rglob("*.[np]*") if path.is_file()}
    part = next((folder / "out").glob("part-*"))
    for scores, out in (
        ("scores.parquet", "scores.parquet"),
        ("scores.parquet", "features.npy"),
        ("out", f"out/{part.name}"),
        ("out", "out/part-00001-of-00002.parquet"),
    ):
        more = [f"--features={folder / 'features.npy'}", "--keep=0.5", f"--out={folder / out}"]
        assert cli.run(["select", str(folder / scores), *more]) == 2
        assert "name another file" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.rglob("*.[np]*") if path.is_file()}
    assert pq.read_metadata(part).num_rows == 1000
