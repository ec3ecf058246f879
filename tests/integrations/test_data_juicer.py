"""data-juicer's own command on a recipe with both operators, in default and in Ray mode."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

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
    rows = [dict(row) for row in talk]
    rows[7]["completion"] = ""
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
