"""The benchmarks of a GPU, rehearsed on the CPU: every contest runs, and its result is checked."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import backbone, language, prepare, run_all
from helpers import tiny_language_model as tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What `benchmarks.gpu.prepare` writes, of tiny things."""
    folder = tmp_path_factory.mktemp("gpu-data")
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (5, 28, 28), np.uint8))
    np.save(folder / "labels.npy", np.arange(5) % 2)
    tiny.tokenizer().save_pretrained(folder)
    tiny.model().config.save_pretrained(folder)
    rows = [{"prompt": f"hello {'x' * i}", "response": f"hell {i}" * (1 + i)} for i in range(9)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rehearsed(monkeypatch, module, data, out, *options):
    arguments = ["--rehearse", "--data", str(data), "--csv", str(out / "found.csv"), *options]
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    status = module.main()
    with (out / "found.csv").open(newline="") as file:
        return status, list(csv.DictReader(file))


SMALL = ("--model", "resnet18", "--rows", "6", "--points", "2", "--side", "32", "--batch", "4")


@pytest.mark.slow
def test_networks_are_timed_and_checked(monkeypatch, data, tmp_path):
    status, rows = rehearsed(monkeypatch, backbone, data, tmp_path, *SMALL)
    assert status == 0
    assert [row["way"] for row in rows] == [
        backbone.LOOP, "loop, bfloat16, torch.compile", "lc_engine, bfloat16",
        "lc_engine, bfloat16, compiled",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_network_that_is_scored_wrong_is_told(monkeypatch, data):
    monkeypatch.setattr(backbone, "engine", lambda *given: np.zeros(len(given[1])))
    pairs = torch.utils.data.TensorDataset(*prepare.decoded(data, 4, 32))
    path = language.lc.LearningPath.explicit([1.0])
    found = backbone.check_float32(backbone.model("resnet18", None, 32), pairs, 4, path)
    assert len(found) == 1
    assert "differs from the loop" in found[0]


@pytest.mark.slow
def test_language_is_timed_and_checked(monkeypatch, data, tmp_path):
    status, rows = rehearsed(monkeypatch, language, data, tmp_path, "--points", "2")
    assert status == 0
    assert [row["way"] for row in rows][::2] == [language.LOOP, language.LOOP + ", torch.compile"]
    monkeypatch.setattr(language, "engine", lambda *given: np.linspace(0.1, 1, len(given[2])))
    assert rehearsed(monkeypatch, language, data, tmp_path, "--points", "2")[0] == 1


def test_the_sorted_loop_is_the_plain_loop(data):
    model, tokenizer = prepare.language_model(data, torch.float32)
    rows = prepare.conversation_rows(data, 7)
    path = language.lc.LearningPath.explicit([1.0, 0.8, 0.5])
    scorer = language.CausalLMScorer(model, tokenizer, path=path)
    (batch,) = scorer.transform.open_source(rows).batches(7)
    found = language.SortedLoop(model, path, batch.inputs).lc()
    nll = tiny.PlainLoop(model, path.capacities).nll(batch.inputs)
    np.testing.assert_allclose(found, np.array(path.weights) @ (-nll).exp().numpy(), atol=1e-6)


def test_digits_beyond_those_of_the_folder_are_shifted(data):
    images, labels = prepare.decoded(data, 300, 16)
    assert images.shape == (300, 3, 16, 16)
    assert labels.tolist() == [0, 1, 0, 1, 0] * 60
    assert torch.equal(images[0], images[5])
    assert not torch.equal(images[0], images[260])
    assert images.abs().max() <= 1


@pytest.mark.slow
def test_run_all_rehearsed(data, tmp_path):
    """Through the script itself: every step, the table and the file."""
    script = [str(ROOT / "benchmarks/gpu/run_all.sh"), str(data), str(tmp_path)]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    steps = ["--steps", "tests", "operators"]
    done = subprocess.run(
        [*script, "--rehearse", *steps],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    logs = {path.name: path.read_text()[-2000:] for path in tmp_path.glob("*.log")}
    assert done.returncode == 0, (done.stdout, done.stderr, logs)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"].split()[0] for row in rows} == {
        "apply_thresholds", "linear_confidence", "mlp_confidence", "prototype_confidence",
        "masked_linear", "token_nll",
    }  # fmt: skip
    assert "lc_engine expanded" in done.stdout


def test_run_all_begins_nothing_that_it_has_no_time_for(monkeypatch, capsys, data, tmp_path):
    out = tmp_path / "out"
    options = ["--rehearse", "--data", str(data), "--out", str(out), "--minutes", "0"]
    monkeypatch.setattr(sys, "argv", ["run_all", *options])
    assert run_all.main() == 0
    said = capsys.readouterr().out
    assert "no time for: tests, resnet18-6, language, operators" in said
    assert (out / "results.csv").read_text() == ",".join(run_all.COLUMNS) + "\n"


def test_run_all_ends_a_step_that_hangs_and_reports_one_that_fails(monkeypatch, capsys, tmp_path):
    steps = (
        run_all.Step("hangs", ("timeit", "-n1", "-r1", "import time; time.sleep(60)"), 0.2),
        run_all.Step("fails", ("no_such_module",), 30),
    )
    monkeypatch.setattr(run_all, "REHEARSED", steps)
    monkeypatch.setattr(
        sys, "argv", ["run_all", "--rehearse", "--data", ".", "--out", str(tmp_path / "out")]
    )
    assert run_all.main() == 1
    said = capsys.readouterr().out
    assert "FAILED hangs: ended after 0 s" in said or "FAILED hangs: ended after 1 s" in said
    assert "FAILED fails: status 1" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_the_status_is_2(monkeypatch, capsys, tmp_path):
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["run_all", *options])
    assert run_all.main() == 2
    assert "needs a CUDA or ROCm device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_test_of_a_gpu_is_run():
    found = {Path(path).name for path in run_all.gpu_tests()}
    assert {"test_gpu.py", "test_cuda_graphs.py", "test_prefetch.py", "test_transfer.py"} <= found


def test_the_steps_take_less_than_the_time_there_is():
    assert sum(step.seconds for step in run_all.STEPS) <= 60 * 7.6
