"""NeMo Curator's runner on a YAML pipeline of documents, and its pipeline over images.

Its image reader needs DALI, so images are given as tasks.
"""

from __future__ import annotations

import copy
import io
import json
import sys

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import torch

import lc_engine as lc
from helpers.frameworks import run_command
from helpers.realdata import image_files
from lc_engine.demo import digits
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.models.load import ModelSpec

pytest.importorskip("nemo_curator", reason="NeMo Curator is not installed: make test-integrations")
pytestmark = pytest.mark.filterwarnings("default")

PATH = "gauss:2:0.7:1.0"
MODEL, SIDE = "efficientnet-lite0", 32


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
    runner = [sys.executable, "-m", "nemo_curator.config.run"]
    run_command([*runner, "--config-path", tmp_path, "--config-name", "pipeline"], tmp_path)
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


def document_stage(model, tokenizer, folder):
    """The stage as NeMo Curator's runner builds it from its YAML."""
    from hydra.utils import instantiate

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    target = "lc_engine.integrations.nemo_curator.LCScoreStage"
    return instantiate({"_target_": target, "model": str(folder), "path": PATH, "dtype": "float32"})


def documents(rows):
    import pandas as pd
    from nemo_curator.tasks import DocumentBatch

    return DocumentBatch(
        dataset_name="talk", data=pd.DataFrame(rows, columns=["prompt", "completion"])
    )


def test_a_task_without_rows_or_of_bad_rows_alone_passes(tmp_path, talk, llama):
    stage = document_stage(*llama, tmp_path)
    for rows, status in (
        ([], []),
        ([{"prompt": "a", "completion": ""}] * 2, ["empty_response"] * 2),
        (talk[:1], ["ok"]),
    ):
        found = stage.process(documents(rows)).to_pyarrow()
        assert found.column_names == ["prompt", "completion", "lc", "loss", "lc_status"]
        assert found["lc_status"].to_pylist() == status
        assert found["lc"].null_count == sum(one != "ok" for one in status)
        assert {str(found.schema.field(name).type) for name in ("lc", "loss")} == {"float"}


def test_a_second_stage_replaces_the_scores_of_the_first(tmp_path, talk, llama):
    model, tokenizer = llama
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    first = document_stage(model, tokenizer, tmp_path / "a").process(documents(talk[:4]))
    second = document_stage(other, tokenizer, tmp_path / "b")
    alone = second.process(documents(talk[:4])).to_pyarrow()
    assert second.process(first).to_pyarrow().equals(alone)
    assert first.to_pyarrow()["lc"].to_pylist() != alone["lc"].to_pylist()


def test_a_task_without_images_passes():
    assert image_stage().process(batches([(None, 0)], 1)[0]).data[0].metadata["lc"] is None
    from nemo_curator.tasks import ImageBatch

    empty = ImageBatch(dataset_name="digits", data=[])
    assert image_stage().process(empty).data == []


def scorer(side=SIDE, path=PATH, **options):
    return lc.Scorer(ModelSpec(MODEL, image_size=side), path=lc.LearningPath.parse(path), **options)


def image_stage(**fields):
    """The image stage as NeMo Curator's runner builds it from its YAML."""
    from hydra.utils import instantiate

    target = "lc_engine.integrations.nemo_curator.LCImageScoreStage"
    config = {"_target_": target, "model": MODEL, "image_size": SIDE, "path": PATH}
    return instantiate(config | fields)


def batches(rows, size):
    from nemo_curator.tasks import ImageBatch, ImageObject

    images = [
        ImageObject(image_id=str(i), image_data=pixels, metadata={"digit": label})
        for i, (pixels, label) in enumerate(rows)
    ]
    starts = range(0, len(images), size)
    return [ImageBatch(dataset_name="digits", data=images[i : i + size]) for i in starts]


def column(images, name):
    values = [image.metadata[name] for image in images]
    return np.array([np.nan if value is None else value for value in values])


def test_its_pipeline_scores_images_by_the_class_means_of_a_run(tmp_path):
    from nemo_curator.backends.ray_data import RayDataExecutor
    from nemo_curator.pipeline import Pipeline

    pixels, labels = (part[::50] for part in digits.load())
    pairs = [
        (PIL.Image.fromarray(p).convert("RGB"), int(y)) for p, y in zip(pixels, labels, strict=True)
    ]
    direct = lc.score(scorer(), pairs, out=tmp_path / "scores")

    rows = [(np.asarray(image), label) for image, label in pairs]
    rows[5], rows[9] = (None, rows[5][1]), (rows[9][0], None)
    prototypes = str(tmp_path / "scores" / "_prototypes.npz")
    stage = image_stage(prototypes=prototypes, label="digit", images_per_batch=16)
    pipeline = Pipeline(name="digits", stages=[stage])
    tasks = pipeline.run(RayDataExecutor(), initial_tasks=batches(rows, 40))

    images = sorted((image for task in tasks for image in task.data), key=lambda i: int(i.image_id))
    assert [image.image_id for image in images] == [str(i) for i in range(100)]
    bad = {5: "unreadable", 9: "bad_label"}
    found = [image.metadata["lc_status"] for image in images]
    assert found == [bad.get(i, "ok") for i in range(100)]
    scored_rows = np.array([i not in bad for i in range(100)])
    for name in ("lc", "loss"):
        scores = column(images, name)
        np.testing.assert_allclose(scores[scored_rows], direct.column(name)[scored_rows], rtol=1e-4)
        assert np.isnan(scores[~scored_rows]).all()
    columns = {"id": np.arange(100)[scored_rows], "label": np.array(labels)[scored_rows]}
    columns["loss"] = column(images, "loss")[scored_rows]
    want = lc.select(direct.only(columns["id"]), 20, gamma=0.5)
    np.testing.assert_array_equal(lc.select(columns, 20, gamma=0.5), want)
    np.testing.assert_array_equal(images[3].image_data, rows[3][0])


def test_the_models_own_classifier_scores_images_of_any_size():
    files = image_files()
    opened = [PIL.Image.open(io.BytesIO(content)).convert("RGB") for _, content, _ in files]
    opened[2] = opened[2].crop((0, 0, 90, 60))
    pairs = list(zip(opened, (label for _, _, label in files), strict=True))
    side, path = 128, "gauss:2:0.95:1.0"  # with fewer weights this classifier is at chance
    direct = lc.score(scorer(side, path, head="linear"), pairs)
    (task,) = batches([(np.asarray(image), label) for image, label in pairs], len(pairs))
    images = image_stage(label="digit", image_size=side, path=path).process(task).data
    np.testing.assert_allclose(column(images, "lc"), direct.column("lc"), rtol=1e-4)
    assert np.ptp(direct.column("lc")) > 0.1
