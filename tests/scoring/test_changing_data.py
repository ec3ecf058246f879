"""Data that change while a job runs end it: no part holds rows of both."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.feature_run import contents
from helpers.kinds_of_data import FEATURES, IMAGES, PLACES, opened, write
from lc_engine.data.faults import DataChangedError
from lc_engine.data.table import ScoreTable
from lc_engine.data.writers.image_files import link_files


def scorer(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = 60 if kind in IMAGES else 6
        model = nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))
    return lc.Scorer(model, path=lc.LearningPath.linear(2, 0.5, 1.0))


def run(kind, folder, out, **options):
    return lc.score(scorer(kind), opened(kind, folder), out, batch_size=2, **options)


def keep(kind, folder):
    """Return a function that puts the files back, with their times."""
    shutil.copytree(folder / "data", folder / "kept")

    def put_back():
        shutil.rmtree(folder / "data")
        shutil.copytree(folder / "kept", folder / "data")

    return put_back


@pytest.mark.parametrize("width", [6, 7])
@pytest.mark.parametrize("kind", [*FEATURES, *IMAGES])
@pytest.mark.parametrize("phase", ["prototypes", "scores"])
def test_a_file_that_changes_ends_the_run_and_mixes_nothing(tmp_path, kind, phase, width):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write(kind, data)
    put_back = keep(kind, tmp_path)

    def change(name, done, rows):
        if name == phase and done >= 6 and not changed:
            changed.append(done)
            write(kind, data, seed=1, width=width)

    changed = []
    with pytest.raises(DataChangedError, match=r"has changed since the run opened it") as why:
        run(kind, data, out, shard_rows=4, progress=change)
    assert changed
    assert str(data) in str(why.value)
    written = {path.name for path in out.glob("part-*")}
    assert len(written) == (0 if phase == "prototypes" else 1)
    assert not list(out.glob("*.npz")) or phase == "scores"
    with pytest.raises(ValueError, match="data_digest"):
        run(kind, data, out, shard_rows=4)
    put_back()
    run(kind, data, out, shard_rows=4)
    run(kind, data, tmp_path / "undisturbed", shard_rows=4)
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("out", [None, "out"])
def test_one_that_changes_at_the_very_end_is_noticed(tmp_path, monkeypatch, out):
    write("npy", tmp_path)
    written = ScoreTable.from_arrays

    def last(**columns):
        (tmp_path / "x.npy").touch()
        return written(**columns)

    if out is not None:
        monkeypatch.setattr(ScoreTable, "from_arrays", last)
    progress = (lambda *_: (tmp_path / "x.npy").touch()) if out is None else None
    with pytest.raises(DataChangedError, match=r"x\.npy"):
        run("npy", tmp_path, None if out is None else tmp_path / out, progress=progress)


def test_a_truncated_file_is_named_rather_than_what_reading_it_led_to(tmp_path):
    write("npy", tmp_path)
    path = tmp_path / PLACES["npy"]

    def cut(name, done, rows):
        if name == "scores":
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)

    with pytest.raises(DataChangedError, match=r"x\.npy has changed .*size 416 -> "):
        run("npy", tmp_path, tmp_path / "out", shard_rows=4, progress=cut)


def test_pruning_by_links_disturbs_no_run_on_the_same_folder(tmp_path):
    write("folder", tmp_path / "data")
    images = tmp_path / "data" / PLACES["folder"]
    names = [str(file.relative_to(images)) for file in sorted(images.rglob("*.bmp"))]
    pruned = tmp_path / "pruned"

    def link(phase, done, rows):
        if phase == "scores" and 0 < done < rows:
            shutil.rmtree(pruned, ignore_errors=True)
            assert link_files(images, names, pruned) == 0, "all by links"
            linked.append(done)

    linked = []
    run("folder", tmp_path / "data", tmp_path / "out", shard_rows=4, progress=link)
    assert len(linked) > 1
    run("folder", tmp_path / "data", tmp_path / "undisturbed", shard_rows=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
