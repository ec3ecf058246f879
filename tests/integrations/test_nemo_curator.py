"""NeMo Curator's own runner on a YAML pipeline: JSONL in, the stage by its name, Parquet out."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import lc_engine as lc
from lc_engine.language.scorer import CausalLMScorer

pytest.importorskip("nemo_curator", reason="NeMo Curator is not installed: make test-integrations")
pytestmark = pytest.mark.filterwarnings("default")

PATH = "gauss:2:0.7:1.0"


def test_its_runner_scores_documents(tmp_path, talk, llama):
    model, tokenizer = llama
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"number": i, **row} for i, row in enumerate(talk)]
    rows[7]["completion"] = ""
    (tmp_path / "data").mkdir()
    for part in range(2):
        lines = [json.dumps(row) + "\n" for row in rows[part::2]]
        (tmp_path / "data" / f"part-{part}.jsonl").write_text("".join(lines))
    (tmp_path / "pipeline.yaml").write_text(
        f"""
backend: ray_data
stages:
  - _target_: nemo_curator.stages.text.io.reader.JsonlReader
    file_paths: {tmp_path / "data"}
    files_per_partition: 1
  - _target_: lc_engine.integrations.nemo_curator.LCScoreStage
    model: {tmp_path / "model"}
    path: {PATH}
    dtype: float32
  - _target_: nemo_curator.stages.text.io.writer.ParquetWriter
    path: {tmp_path / "out"}
"""
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "nemo_curator.config.run",
            "--config-path", tmp_path, "--config-name", "pipeline",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    found = pq.read_table(tmp_path / "out").sort_by("number").to_pylist()
    direct = lc.score(
        CausalLMScorer(model, tokenizer, path=lc.LearningPath.parse(PATH)),
        [{name: row[name] for name in ("prompt", "completion")} for row in rows],
    )
    assert [row["number"] for row in found] == list(range(len(rows)))
    assert [row["prompt"] for row in found] == [row["prompt"] for row in rows]
    assert [row["lc_status"] for row in found] == direct.column("status").tolist()
    lc_ = np.array([np.nan if row["lc"] is None else row["lc"] for row in found])
    np.testing.assert_allclose(lc_, direct.column("lc"), rtol=1e-4)
    assert np.isnan(lc_[7])
