"""NeMo Curator's pipeline over real pictures, its stage made from YAML; its reader needs DALI."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

import lc_engine as lc
from helpers.realdata import picture_files
from lc_engine.demo import digits
from lc_engine.models.load import ModelSpec

pytest.importorskip("nemo_curator", reason="NeMo Curator is not installed: make test-integrations")
pytestmark = pytest.mark.filterwarnings("default")

MODEL, SIDE, PATH = "efficientnet-lite0", 32, "gauss:2:0.7:1.0"


def scorer(side=SIDE, path=PATH, **options):
    return lc.Scorer(ModelSpec(MODEL, image_size=side), path=lc.LearningPath.parse(path), **options)


def made(**fields):
    """The stage as NeMo Curator's runner makes it of a line of its YAML."""
    from hydra.utils import instantiate

    where = "lc_engine.integrations.nemo_curator_images.LCImageScoreStage"
    asked = {"_target_": where, "model": MODEL, "image_size": SIDE, "path": PATH}
    return instantiate(asked | fields)


def batches(rows, size):
    from nemo_curator.tasks import ImageBatch, ImageObject

    images = [
        ImageObject(image_id=str(i), image_data=pixels, metadata={"digit": label})
        for i, (pixels, label) in enumerate(rows)
    ]
    cuts = range(0, len(images), size)
    return [ImageBatch(dataset_name="digits", data=images[cut : cut + size]) for cut in cuts]


def column(images, name):
    values = [image.metadata[name] for image in images]
    return np.array([np.nan if value is None else value for value in values])


def test_its_pipeline_scores_digits_by_the_class_means_of_a_run(tmp_path):
    from nemo_curator.backends.ray_data import RayDataExecutor
    from nemo_curator.pipeline import Pipeline

    pixels, labels = (part[::50] for part in digits.load())
    pairs = [
        (PIL.Image.fromarray(p).convert("RGB"), int(y)) for p, y in zip(pixels, labels, strict=True)
    ]
    direct = lc.score(scorer(), pairs, out=tmp_path / "scores")

    rows = [(np.asarray(picture), label) for picture, label in pairs]
    rows[5], rows[9] = (None, rows[5][1]), (rows[9][0], None)
    stage = made(prototypes=str(tmp_path / "scores" / "prototypes.npz"), label="digit", pictures=16)
    pipeline = Pipeline(name="digits", stages=[stage])
    tasks = pipeline.run(RayDataExecutor(), initial_tasks=batches(rows, 40))

    images = sorted((image for task in tasks for image in task.data), key=lambda i: int(i.image_id))
    assert [image.image_id for image in images] == [str(i) for i in range(100)]
    bad = {5: "unreadable", 9: "bad_label"}
    found = [image.metadata["lc_status"] for image in images]
    assert found == [bad.get(i, "ok") for i in range(100)]
    fine = np.array([i not in bad for i in range(100)])
    for name in ("lc", "loss"):
        scores = column(images, name)
        np.testing.assert_allclose(scores[fine], direct.column(name)[fine], rtol=1e-4)
        assert np.isnan(scores[~fine]).all()
    columns = {"id": np.arange(100)[fine], "label": np.array(labels)[fine]}
    columns["loss"] = column(images, "loss")[fine]
    want = lc.select(direct.only(columns["id"]), 20, gamma=0.5)
    np.testing.assert_array_equal(lc.select(columns, 20, gamma=0.5), want)
    np.testing.assert_array_equal(images[3].image_data, rows[3][0])


def test_the_model_s_own_classifier_scores_pictures_of_any_size():
    files = picture_files()
    opened = [PIL.Image.open(io.BytesIO(content)).convert("RGB") for _, content, _ in files]
    opened[2] = opened[2].crop((0, 0, 90, 60))
    pairs = list(zip(opened, (label for _, _, label in files), strict=True))
    side, path = 128, "gauss:2:0.95:1.0"  # with more masked this classifier knows nothing
    direct = lc.score(scorer(side, path, head="linear"), pairs)
    (task,) = batches([(np.asarray(picture), label) for picture, label in pairs], len(pairs))
    images = made(label="digit", image_size=side, path=path).process(task).data
    np.testing.assert_allclose(column(images, "lc"), direct.column("lc"), rtol=1e-4)
    assert np.ptp(direct.column("lc")) > 0.1
