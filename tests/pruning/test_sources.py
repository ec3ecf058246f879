"""`lc-engine prune` of several data sets in one run."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.pruning import names, pictures, prune, selection
from lc_engine.cli import main as cli
from lc_engine.language.model import LanguageModelSpec
from lc_engine.reporting import page
from lc_engine.reporting.run import Run
from lc_engine.reporting.scored_data import ScoredData


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    """The page takes as long as all the rest."""
    monkeypatch.setattr(page, "report", lambda scores, data, subset, out, **_: None)


@pytest.fixture
def sources(tmp_path):
    """20 lines of JSON and 12 rows of Parquet."""
    rows = tiny.random_rows(np.random.default_rng(5), 32)
    math, code = tmp_path / "a.jsonl", tmp_path / "code.parquet"
    math.write_text("".join(json.dumps(row | {"topic": "sums"}) + "\n" for row in rows[:20]))
    pq.write_table(pa.Table.from_pylist(rows[20:]), code)
    return math, code


def test_a_run_of_two_sources_shares_the_budget_and_writes_each_in_its_form(
    language_model, sources, tmp_path, monkeypatch
):
    math, code = sources
    out = tmp_path / "pruned"
    (tmp_path / "always.txt").write_text("math/3\ncode/3\n")
    options = ["--by=source", "--share=math=0.75", "--strategy=easy", "--carry=topic"]
    options += [f"--data={code}", f"--always-keep={tmp_path / 'always.txt'}"]
    assert prune(language_model, f"math={math}", out, "--keep=8", *options) == 0
    rows = pd.read_parquet(out / "rows.parquet")
    assert rows["id"].tolist() == [f"math/{i}" for i in range(20)] + [
        f"code/{i}" for i in range(12)
    ]
    assert rows["source"].tolist() == ["math"] * 20 + ["code"] * 12
    assert rows["topic"].tolist() == ["sums"] * 20 + ["(none)"] * 12
    for _, group in rows.groupby("source"):
        order = group.sort_values("ifd", ascending=False)["rank"]
        np.testing.assert_allclose(order, np.linspace(0, 1, len(group)), atol=1e-6)
    kept = np.load(out / "positions.npy")
    assert {3, 23} <= set(kept.tolist())
    assert (rows["kept"].to_numpy().nonzero()[0] == kept).all()
    lines = math.read_text().splitlines(keepends=True)
    written = (out / "data" / "math" / "a.jsonl").read_text()
    assert written == "".join(lines[row] for row in kept[kept < 20])
    found = pq.read_table(out / "data" / "code" / "code.parquet")
    assert found.equals(pq.read_table(code).take(kept[kept >= 20] - 20))
    described = selection(out)
    assert {group["group"]: group["kept"] for group in described["groups"]} == {
        "math": 6,
        "code": 2,
    }
    assert described["form"]["sources"]["math"] == {"kind": "jsonl", "rows": 6}
    assert described["data"] == {"math": str(math), "code": str(code)}
    # Alone each source has the scores that it has among others.
    spec = LanguageModelSpec(language_model[0].partition("=")[2], "float32", "cpu")
    scorer = lc.Scorer.for_causal_lm(spec, path=lc.LearningPath.explicit([1.0]))
    alone = lc.score(scorer, code, progress=False)
    np.testing.assert_allclose(rows["loss"][20:], alone.column("loss"), rtol=1e-5)
    # The same command again, another budget and `select` score nothing anew.
    monkeypatch.setattr(type(scorer), "score_rows", None)
    monkeypatch.chdir(tmp_path)
    command = shlex.split(described["command"])[1:]
    assert cli.run([*command, "--keep=4"]) == 0
    assert selection(out)["rows"]["kept"] == 4
    scores = str(out / "scores")
    choose = ["select", scores, "--keep=3", "--strategy=hard", "--by=source"]
    assert cli.run([*choose, "--share=code=1", "--write=hard"]) == 0
    assert names(tmp_path / "hard") == ["code/code.parquet"]
    assert len(pq.read_table(tmp_path / "hard" / "code" / "code.parquet")) == 3
    # The page and its table take sources as `score` does, also where they have moved.
    (tmp_path / "moved").mkdir()
    moved = math.rename(tmp_path / "moved" / "a.jsonl")
    given = [f"--data=math={moved}", f"--data={code}", "--format=parquet", "--out=seen.parquet"]
    assert cli.run(["report", scores, *given]) == 0
    seen = pq.read_table(tmp_path / "seen.parquet")["text"].to_pylist()
    assert json.loads(lines[19])["output"] in seen[19]
    assert pq.read_table(code)["output"][11].as_py() in seen[31]


def test_a_source_that_changed_is_not_continued(language_model, sources, tmp_path, capsys):
    math, code = sources
    given = [f"--data={code}", "--keep=8", "--strategy=easy"]
    assert prune(language_model, math, tmp_path / "pruned", *given) == 0
    math.write_text(math.read_text() * 2)
    assert prune(language_model, math, tmp_path / "pruned", *given) == 2
    assert "data_digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("pairs", "one model cannot score both"),
        ("same name", "both go by the name a: write NAME=PATH"),
        ("missing", "does not exist"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(
    language_model, sources, tmp_path, second, message, capsys
):
    other = tmp_path / "other" / "a.jsonl"
    other.parent.mkdir()
    pair = {"prompt": "two and two", "chosen": "four", "rejected": "five"}
    other.write_text(3 * (json.dumps(pair) + "\n"))
    named = {"pairs": f"b={other}", "same name": other, "missing": f"b={tmp_path / 'no'}"}[second]
    given = [f"--data={named}", "--keep=8"]
    assert prune(language_model, sources[0], tmp_path / "pruned", *given) == 2
    assert message in capsys.readouterr().err


def test_folders_of_images_share_their_classes_by_name(model, tmp_path):
    pixels, labels = pictures(48)
    for name, classes, rows in (("one", "ab", range(24)), ("two", "bc", range(24, 48))):
        for row in rows:
            path = tmp_path / name / "abc"[labels[row]] / f"{row}.png"
            if path.parent.name in classes:
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(pixels[row]).save(path)
    checkpoint = model[1].partition("=")[2]
    scorer = lc.Scorer(
        "timm/test_resnet",
        checkpoint=checkpoint,
        image_size=32,
        path=lc.LearningPath.explicit([1.0]),
    )
    data = {name: tmp_path / name for name in ("one", "two")}
    found = lc.prune(scorer, data, 8, tmp_path / "pruned", strategy="easy", progress=False)
    assert {group["group"]: group["rows"] for group in found.selection["groups"]} == {
        0: 8,
        1: 16,
        2: 8,
    }
    kept = names(found.data)
    assert kept == sorted(found.ids.tolist())
    assert {name.split("/")[1] for name in kept} == {"a", "b", "c"}
    for name in kept:
        assert (found.data / name).samefile(tmp_path / name)
    assert set(pd.read_parquet(tmp_path / "pruned" / "rows.parquet")["group"]) == {"a", "b", "c"}
    by_source = lc.select(found.scores, 6, "easy", by="source")
    assert sum(one.startswith("one/") for one in by_source) == 3


def test_rows_of_several_sources_have_previews(sources):
    data = dict(zip(("math", "code"), sources, strict=True))
    rows = np.array([3, 19, 20, 31])
    run, ids = Run({"head": {"kind": "lm"}}), [""] * 4
    found = dict(ScoredData(data, run, 32).previews(rows, ids))
    alone = dict(ScoredData(sources[1], run, 12).previews(np.array([0, 11]), ids))
    assert list(found) == rows.tolist()
    assert [found[20], found[31]] == [alone[0], alone[11]]
    with pytest.raises(ValueError, match="32 rows, but the score table has 31"):
        ScoredData(data, run, 31)
