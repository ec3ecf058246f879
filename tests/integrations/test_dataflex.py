"""The selector through DataFlex's own command, in one process and in two, and its score source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lc_engine as lc
from helpers.frameworks import llamafactory_config, save_for_training
from lc_engine.language.scorer import CausalLMScorer

pytest.importorskip("dataflex", reason="DataFlex is not installed: make test-integrations")
pytestmark = pytest.mark.filterwarnings("default")

PATH = lc.LearningPath.gauss(2, 0.7, 1.0)
# Two warm-up steps, then two draws for two steps each.
BATCH, STEPS, DRAWS = 4, 2, (2, 4)


@pytest.fixture
def folder(tmp_path, talk, llama):
    """Scores of real rows, and the files that DataFlex's command reads."""
    model, tokenizer = llama
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    entry = {"file_name": "talk.json", "columns": {"prompt": "prompt", "response": "completion"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"talk": entry}))
    lc.score(CausalLMScorer(model, tokenizer, path=PATH), talk, out=tmp_path / "scores")
    save_for_training(model, tokenizer, tmp_path / "model")
    params = {"cache_dir": str(tmp_path / "draws"), "scores": str(tmp_path / "scores"), "seed": 3}
    (tmp_path / "components.yaml").write_text(json.dumps({"selectors": {"lc": {"params": params}}}))
    config = llamafactory_config(
        tmp_path,
        "talk",
        cutoff_len=64,
        per_device_train_batch_size=BATCH,
        train_type="dynamic_select",
        components_cfg_file=str(tmp_path / "components.yaml"),
        component_name="lc",
        warmup_step=2,
        update_step=STEPS,
        update_times=2,
    )
    (tmp_path / "train.yaml").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("processes", [1, 2])
def test_its_command_trains_on_subsets_by_the_scores(folder, talk, llama, processes):
    run_training(folder, processes)
    result = json.loads((folder / "run" / "train_results.json").read_text())
    assert np.isfinite(result["train_loss"])
    assert result["epoch"] > 0

    direct = lc.score(CausalLMScorer(*llama, path=PATH), talk)
    found = {int(p.stem[5:]): json.loads(p.read_text()) for p in (folder / "draws").iterdir()}
    assert sorted(found) == list(DRAWS)
    for step, draw in found.items():
        rows = BATCH * processes * STEPS
        keep = lc.select(direct, rows, gamma=0.5, by=None, seed=3 + step)
        assert draw["indices"] == keep.tolist()
        np.testing.assert_allclose(draw["metric"]["loss"], direct.column("loss")[keep], rtol=1e-5)
    assert found[2]["indices"] != found[4]["indices"]


def run_training(folder, processes):
    """Run the command.

    One of several processes may hang in `destroy_process_group` (gloo, torch 2.6, after
    LLaMA-Factory is done), so they are terminated once all files are written.
    """
    several = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(processes)} if processes > 1 else {}
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "lc_engine.integrations.dataflex", "train", "train.yaml"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | several,
            start_new_session=True,
        )
        try:
            while running.poll() is None:
                time.sleep(1)
                if processes > 1 and (folder / "run" / "README.md").exists():
                    break
            assert not running.poll(), (folder / "log").read_text()[-9000:]
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)  # torchrun then ends its workers
            running.wait()


class OneProcess:
    """The part of accelerate that a selector uses."""

    is_main_process = True


def build_selector(name, folder, rows, **params):
    """A selector as DataFlex's trainer builds it."""
    from dataflex.core.registry import REGISTRY

    import lc_engine.integrations.dataflex  # noqa: F401  registers

    runtime = {"dataset": range(rows), "accelerator": OneProcess(), "data_collator": None}
    params |= {"cache_dir": str(folder / "own")}
    return REGISTRY.build("selector", name, runtime=runtime, cfg=params)


def test_it_selects_among_the_rows_of_an_earlier_stage(folder, talk):
    scores = str(folder / "scores")
    selector = build_selector("lc", folder, len(talk), scores=scores, strategy="hard")
    pool = list(range(30, 60))
    selector.set_candidate_pool(pool)
    loss = lc.ScoreTable.read(folder / "scores").column("loss")
    hardest = sorted(pool, key=lambda row: -loss[row])[:10]
    assert selector.select(None, 0, 10) == sorted(hardest)


def test_its_own_loss_selector_takes_the_scores(folder, talk):
    from lc_engine.integrations.dataflex import score_source

    scores = lc.ScoreTable.read(folder / "scores")
    selector = build_selector("loss", folder, len(talk), focus="high", focus_weight=1e6)
    selector.set_score_source(score_source(scores))
    model = type("Model", (), {"eval": lambda self: None})()
    kept = selector.select(model, 0, 12)
    written = json.loads((folder / "own" / "step_0.json").read_text())["metric"]["loss"]
    np.testing.assert_allclose(written, scores.column("loss")[kept], rtol=1e-6)
    assert min(written) > np.quantile(scores.column("loss"), 0.6)


def test_scores_of_other_rows_are_refused(folder, talk):
    from lc_engine.integrations.dataflex import score_source

    with pytest.raises(ValueError, match="must hold the row indices"):
        score_source(lc.ScoreTable.read(folder / "scores").only(np.array([5, 3])))
    with pytest.raises(ValueError, match="scores has 120 rows and the data set 119"):
        build_selector("lc", folder, len(talk) - 1, scores=str(folder / "scores"))
