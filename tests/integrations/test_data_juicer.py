"""data-juicer's own command on a recipe with both operators, in default and in Ray mode."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers.frameworks import run_command
from lc_engine.language.scorer import CausalLMScorer

pytest.importorskip("data_juicer", reason="data-juicer is not installed: make test-integrations")
pytestmark = pytest.mark.filterwarnings("default")

PATH = "gauss:2:0.7:1.0"
SELECT = {"keep": 0.2, "gamma": 0.5, "id_key": "id"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, talk, llama):
    folder = tmp_path_factory.mktemp("juicer")
    model, tokenizer = llama
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [
        {"id": f"row {i}", "text": "", "query": row["prompt"], "response": row["completion"]}
        for i, row in enumerate(talk)
    ]
    rows[7]["response"] = ""
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def direct(talk, llama):
    rows = [{"prompt": row["prompt"], "response": row["completion"]} for row in talk]
    rows[7]["response"] = ""
    scorer = CausalLMScorer(*llama, path=lc.LearningPath.parse(PATH))
    return lc.score(scorer, rows)


def process(folder: Path, mode: str, *operators: dict) -> list[dict]:
    """Run `dj-process` on a recipe and return the rows that it exports."""
    recipe = {
        "project_name": "lc",
        "executor_type": mode,
        "ray_address": "local",
        "dataset_path": str(folder / "talk.jsonl"),
        "export_path": str(folder / mode / f"out-{len(operators)}.jsonl"),
        "work_dir": str(folder / mode / "work"),
        "np": 1,
        "process": list(operators),
        "keep_stats_in_res_ds": True,
        "open_tracer": False,
        "use_cache": False,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    command = Path(sys.executable).parent / "dj-process"
    run_command([command, "--config", folder / "recipe.yaml"], folder, CUDA_VISIBLE_DEVICES="")
    out = Path(recipe["export_path"])
    files = sorted(out.rglob("*.json*")) if out.is_dir() else [out]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("mode", ["default", "ray"])
def test_its_command_scores_and_selects(folder, direct, mode):
    score = {"lc_score_filter": {"model": str(folder / "model"), "path": PATH, "dtype": "float32"}}
    rows = process(folder, mode, score, {"lc_select_pipeline": SELECT})
    ids = np.array([f"row {i}" for i in range(len(direct))])
    table = {name: direct.column(name) for name in ("lc", "loss", "status")} | {"id": ids}
    want = lc.select(table, 0.2, gamma=0.5, by=None)
    assert len(want) == 24
    assert sorted(row["id"] for row in rows) == want.tolist()
    stats = {row["id"]: row["__dj__stats__"] for row in rows}
    for name, lc_ in zip(ids, direct.column("lc"), strict=True):
        if name in stats:
            assert stats[name]["lc"] == pytest.approx(lc_, rel=1e-4)
            assert stats[name]["lc_status"] == "ok"


def test_bounds_filter_but_keep_rows_without_a_score(folder, direct):
    scores = direct.column("lc")
    middle = float(np.nanmedian(scores))
    score = {"model": str(folder / "model"), "path": PATH, "dtype": "float32", "min_score": middle}
    rows = process(folder, "default", {"lc_score_filter": score})
    want = {f"row {i}" for i in np.flatnonzero((scores >= middle - 1e-6) | np.isnan(scores))}
    near = {f"row {i}" for i in np.flatnonzero(np.abs(scores - middle) < 1e-5)}
    found = {row["id"]: row["__dj__stats__"] for row in rows}
    assert set(found) - near == want - near
    assert found["row 7"]["lc_status"] == "empty_response"
    assert found["row 7"]["lc"] is None


def rescaled(llama, folder):
    """Save the tiny Llama with other weights and return its folder."""
    model, tokenizer = llama
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    other.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(model, rows, **options):
    """Run the filter on rows or on the data set of an earlier run, and return both stats and it."""
    from data_juicer.core.data import NestedDataset
    from datasets import Dataset

    from lc_engine.integrations.data_juicer import LCScoreFilter

    dataset = NestedDataset(Dataset.from_list(rows)) if isinstance(rows, list) else rows
    made = LCScoreFilter(model=str(model), path=PATH, dtype="float32", batch_size=2, **options)
    done = made.run(dataset)
    return [row["__dj__stats__"] for row in done], done


def talk_rows(talk, *bad):
    rows = [{"text": "", "query": r["prompt"], "response": r["completion"]} for r in talk[:5]]
    for i in bad:
        rows[i]["response"] = ""
    return rows


def test_earlier_rounds_are_read_as_of_alpaca(folder, talk, llama):
    history = [[talk[5]["prompt"], talk[5]["completion"]]]
    stats, _ = run(folder / "model", [row | {"history": history} for row in talk_rows(talk)])
    rows = [
        {"instruction": row["prompt"], "output": row["completion"], "history": history}
        for row in talk[:5]
    ]
    wanted = lc.score(CausalLMScorer(*llama, path=lc.LearningPath.parse(PATH)), rows)
    np.testing.assert_allclose([one["loss"] for one in stats], wanted.column("loss"), rtol=1e-5)
    plain, _ = run(folder / "model", talk_rows(talk))
    assert all(a["loss"] != b["loss"] for a, b in zip(stats, plain, strict=True))


def test_a_second_filter_has_scores_of_its_own_model(folder, talk, llama, tmp_path):
    other = rescaled(llama, tmp_path)
    first, dataset = run(folder / "model", talk_rows(talk))
    alone, _ = run(other, talk_rows(talk))
    second, dataset = run(other, dataset)
    assert second == alone
    assert all(a["lc"] != b["lc"] for a, b in zip(first, second, strict=True))
    again, _ = run(folder / "model", dataset)
    assert again == first


def test_the_same_filter_scores_only_texts_that_changed_since(folder, talk, monkeypatch):
    from lc_engine.integrations.data_juicer import LCScoreFilter
    from lc_engine.integrations.texts import TextScorer

    scored = []
    score = TextScorer.score
    monkeypatch.setattr(
        TextScorer, "score", lambda self, rows: scored.append(len(rows)) or score(self, rows)
    )
    rows = talk_rows(talk)
    samples = {name: [row[name] for row in rows] for name in rows[0]}
    samples["__dj__stats__"] = [{} for _ in rows]
    operator = LCScoreFilter(model=str(folder / "model"), path=PATH, dtype="float32")
    first = copy.deepcopy(operator.compute_stats_batched(samples)["__dj__stats__"])
    samples["response"][3] += " And more."
    second = operator.compute_stats_batched(samples)["__dj__stats__"]
    assert scored == [5, 1]
    assert [i for i in range(5) if first[i] != second[i]] == [3]


@pytest.mark.parametrize("bad", [(0, 1), range(5)])
def test_batches_of_bad_rows_alone_are_scored(folder, talk, bad):
    stats, _ = run(folder / "model", talk_rows(talk, *bad))
    want = ["empty_response" if i in bad else "ok" for i in range(5)]
    assert [one["lc_status"] for one in stats] == want
    assert [one["lc"] is None for one in stats] == [i in bad for i in range(5)]


def test_one_row_and_no_row_are_scored_and_selected(folder, talk):
    from data_juicer.core.data import NestedDataset
    from datasets import Dataset

    from lc_engine.integrations.data_juicer import LCSelectPipeline

    stats, dataset = run(folder / "model", talk_rows(talk)[:1])
    assert [one["lc_status"] for one in stats] == ["ok"]
    select = LCSelectPipeline(keep=1)
    assert len(select.run(dataset)) == 1
    unscored = NestedDataset(Dataset.from_list(talk_rows(talk)))
    for empty in (dataset.select([]), unscored.select([])):
        assert run(folder / "model", empty)[0] == []
        assert len(select.run(empty)) == 0
    with pytest.raises(ValueError, match="put lc_score_filter before"):
        select.run(unscored)
    with pytest.raises(ValueError, match='no row with status "ok"'):
        select.run(run(folder / "model", talk_rows(talk, *range(5)))[1])
