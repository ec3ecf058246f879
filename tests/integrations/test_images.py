"""ImageScorer, a few images at a time, against `lc.score`."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

import lc_engine as lc
from lc_engine.demo import digits
from lc_engine.integrations.images import ImageScorer
from lc_engine.models.load import ModelSpec

pytestmark = pytest.mark.slow

MODEL, SIDE, PATH = "efficientnet-lite0", 32, "gauss:2:0.7:1.0"


@pytest.fixture(scope="module")
def rows():
    pixels, labels = digits.load()
    return [pixels[::100], labels[::100].tolist()]


def score(scorer, images, labels):
    found = list(scorer.score(images, labels, batch_size=16))
    assert [i for part, _ in found for i in range(len(images))[part]] == list(range(50))
    values = np.concatenate([batch.scores.lc.numpy() for _, batch in found])
    return values, [status for _, batch in found for status in batch.status]


@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_grey_images_get_the_scores_of_a_run(tmp_path, rows, head):
    pixels, labels = rows
    pairs = [
        (PIL.Image.fromarray(image).convert("RGB"), label)
        for image, label in zip(pixels, labels, strict=True)
    ]
    spec = ModelSpec(MODEL, image_size=SIDE)
    run = lc.Scorer(spec, head=head, path=lc.LearningPath.parse(PATH))
    direct = lc.score(run, pairs, out=tmp_path)
    prototypes = str(tmp_path / "_prototypes.npz") if head == "prototype" else None
    scorer = ImageScorer(MODEL, prototypes, PATH, image_size=SIDE)
    found, status = score(scorer, pixels, labels)
    assert set(status) == {"ok"}
    np.testing.assert_allclose(found, direct.column("lc"), rtol=1e-4)


def test_a_missing_image_or_label_sets_the_status_of_its_row(rows):
    pixels, labels = list(rows[0]), list(rows[1])
    pixels[3], labels[7], labels[8] = None, None, 1000
    pixels[40] = np.zeros((4, 4, 7), np.uint8)
    found, status = score(ImageScorer(MODEL, path=PATH, image_size=SIDE), pixels, labels)
    bad = {3: "unreadable", 7: "bad_label", 8: "bad_label", 40: "unreadable"}
    assert status == [bad.get(i, "ok") for i in range(50)]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), sorted(bad))


def test_a_missing_file_of_class_means_is_named():
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        ImageScorer(MODEL, "none.npz")
