"""What a page sets apart, programs and commands of lc-engine, runs from top to bottom."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.pages import PAGES, steps
from lc_engine.cli.exit_codes import BAD_ROWS
from lc_engine.cli.main import run
from lc_engine.demo.digits import write_folders

# Pages whose programs another test runs, with what they return checked against plain references.
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/any-loss.md": "tests/scorer/test_any_loss.py",
    "docs/embedding.md": "tests/integrations/test_embedding.py",
    "docs/how-it-works.md": "tests/test_readme.py",
}
# Commands and programs that no test runs, by how they begin.
NOT_RUN = {
    "lc-engine bench --language": "takes minutes",
    "lc-engine demo": "takes minutes; CI's `make demo` is the same",
    "lc-engine score … --out": "stands for any job, on a cluster or in several processes",
    "from trl import": "trl is in no environment of these tests; examples/conversations.py has it",
}
slow = pytest.mark.slow


def is_ours(step):
    """Whether a step is a program or a command of lc-engine, and one that a test can run."""
    if is_command := not isinstance(step, str):
        step = " ".join(step)
    return not step.startswith(tuple(NOT_RUN)) and (not is_command or step.startswith("lc-engine "))


def follow(page, capsys, status=0, **names):
    """Run a page in the working directory, its programs in one namespace; return that.

    `status` is what its commands end with.
    """
    for step in filter(is_ours, steps(page)):
        if isinstance(step, str):
            exec(step, names)
        else:
            assert run(step[1:]) == status, capsys.readouterr().err
    return names


FOLLOWED = (
    "docs/index.md",
    "docs/language.md",
    "docs/prune.md",
    "docs/report.md",
    "docs/scale.md",
    "docs/scores.md",
    "docs/selection.md",
    "docs/start/features.md",
    "docs/start/images.md",
    "docs/start/instructions.md",
)


def test_every_page_with_something_to_run_is_run():
    pages = {page for page in PAGES if any(map(is_ours, steps(page)))}
    assert pages == {*FOLLOWED, *ELSEWHERE}


def test_what_is_not_run_is_on_a_page():
    found = [step for page in PAGES for step in steps(page)]
    shown = [step if isinstance(step, str) else " ".join(step) for step in found]
    assert [s for s in NOT_RUN if not any(line.startswith(s) for line in shown)] == []


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here):
    """`photos/`: 40 real digits, in a folder per class."""
    write_folders(here / "digits", train=4, test=0, seed=0)
    return (here / "digits" / "train").rename(here / "photos")


@pytest.fixture
def model(here):
    """`smollm2/`: a tiny language model with its tokenizer, and 20 rows for it."""
    tiny.model().save_pretrained(here / "smollm2")
    tiny.tokenizer().save_pretrained(here / "smollm2")
    rows = [{"instruction": f"What is {n} and {n}?", "output": f"{2 * n}."} for n in range(20)]
    write_rows(here / "chat.jsonl", rows)
    return here / "smollm2"


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@slow
def test_from_images_to_a_trained_model(photos, here, capsys):
    wrong = next((photos / "3").iterdir())
    (here / "wrong.txt").write_text(f"3/{wrong.name}\n", encoding="utf-8")
    names = follow("docs/start/images.md", capsys)
    assert len(names["kept"]) == 4  # a tenth of 40
    assert len(names["others"]) == 36
    assert (here / "trained.pt").is_file()
    assert np.isfinite(float(names["loss"].detach()))
    assert not (here / "pruned" / "data" / "3" / wrong.name).exists()


@slow
def test_from_conversations_to_a_data_set(model, here, capsys):
    with (here / "chat.jsonl").open("a", encoding="utf-8") as file:
        file.write("\nno JSON\n")
    names = follow("docs/start/instructions.md", capsys, status=BAD_ROWS)
    assert "invalid_json" in (shown := capsys.readouterr().out)
    worst = pq.read_table("pruned/rows.parquet").to_pandas().sort_values("rank")["row"].iloc[0]
    assert f'"What is {worst} and {worst}?"' in shown
    lines = (here / "chat.jsonl").read_text(encoding="utf-8").splitlines()
    kept = (here / "pruned" / "data" / "chat.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(kept) == len(names["data"]) == 4
    assert set(kept) < set(lines)


@slow
def test_from_features_to_a_probe(here, capsys, monkeypatch):
    features, digits = load_digits(return_X_y=True)
    names_of = np.array([f"digit {n}" for n in range(1, 11)])  # no numbers, and not in their order
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: (features, names_of[digits]))
    names = follow("docs/start/features.md", capsys)
    assert len(names["kept"]) == 180
    assert names["probe"].score(names["features"], names["labels"]) > 0.8
    assert np.mean(lc.ScoreTable.read("pruned/scores").column("lc")) > 0.8  # 0.1 by chance


@slow
def test_the_site_s_first_page_and_prune(photos, model, here, capsys):
    follow("docs/index.md", capsys)
    model.rename(here / "SmolLM2-135M")
    rows = [json.loads(line) for line in (here / "chat.jsonl").read_text().splitlines()]
    write_rows(here / "a.jsonl", rows[:12])
    pq.write_table(pa.Table.from_pylist(rows[12:]), here / "b.parquet")
    names = follow("docs/prune.md", capsys)
    assert names["pruned"].data.is_dir()
    assert len(list((here / "easy").rglob("*.png"))) == 2


@slow
def test_the_page_and_the_score_table(photos, here, capsys):
    photos.rename(here / "images")
    follow("docs/report.md", capsys)
    assert (here / "report.html").stat().st_size > 100_000
    names = follow("docs/scores.md", capsys)
    assert len(names["scored"]) == 40
    follow("docs/scale.md", capsys)


@slow
def test_instruction_data(model, here, capsys):
    model.rename(here / "SmolLM2-135M-Instruct")
    (here / "chat.jsonl").rename(here / "instructions.jsonl")
    names = follow("docs/language.md", capsys)
    assert len(names["keep"]) == 2


@slow
def test_selection(here, capsys):
    features, labels = load_digits(return_X_y=True)
    features = features[:1000].astype(np.float32)
    torch.manual_seed(0)
    head = lc.Scorer(torch.nn.Linear(64, 10), head="linear", masking=lc.Masking(weights="head"))
    scores = lc.score(head, (torch.from_numpy(features), torch.from_numpy(labels[:1000])))
    names = follow("docs/selection.md", capsys, scores=scores, features=features)
    assert len(names["keep"]) == 100
