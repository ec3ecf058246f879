from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import Network
from lc_engine.heads.base import Rows
from lc_engine.heads.linear import LinearHead, MaskedLinearHead
from lc_engine.heads.prototype import PrototypeHead, PrototypeSums
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared
from lc_engine.scorer.scorer import Scorer
from lc_engine.submodels import Submodels

PATH = LearningPath.explicit([1.0, 0.7, 0.4], [1, 2, 5])


OMEGA = torch.tensor(PATH.weights, dtype=torch.float64)


def build(model, x, which="body"):
    prepared = Prepared(model, AUTO, Masking(weights=which), PATH)
    return prepared, prepared.views(x, torch.float32)


def rows(x, y):
    return Rows(x, y, np.arange(len(x)))


def data(rows=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, 6, 6, generator=generator), torch.arange(rows) % 4


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("logit", ["inverse_distance", "neg_sq_distance", "cosine"])
def test_prototype_logits_are_their_formulas(logit, temperature):
    model, (x, y) = Network().eval(), data()
    prepared, views = build(model, x)
    tap, submodels = prepared.tap, Submodels(model, PATH)
    sums = PrototypeSums()
    with torch.inference_mode():
        sums.add(tap.features(x), y)
        head = PrototypeHead(views, OMEGA, sums.means(), logit, temperature)
        scores = head.score(rows(x, head.class_index(y)))
        mu = sums.means().means.double()
        want = []
        with submodels:
            for k in range(3):
                submodels.at(k)
                z = tap.features(x).double()
                d = torch.cdist(z, mu, compute_mode="donot_use_mm_for_euclid_dist")
                logits = {
                    "inverse_distance": 1 / d,
                    "neg_sq_distance": -d.square(),
                    "cosine": nn.functional.cosine_similarity(z[:, None], mu[None], dim=-1),
                }[logit]
                want.append((logits / temperature).log_softmax(1)[torch.arange(10), y])
    log_probs = torch.stack(want)
    torch.testing.assert_close(scores.log_probs.double(), log_probs, rtol=2e-5, atol=2e-5)
    omega = torch.tensor([[1 / 8], [2 / 8], [5 / 8]], dtype=torch.float64)
    torch.testing.assert_close(
        scores.lc.double(), (omega * log_probs.exp()).sum(0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("which", "kind", "forwards"),
    [("body", LinearHead, 3), ("all", LinearHead, 3), ("head", MaskedLinearHead, 1)],
)
def test_a_masked_head_alone_costs_one_forward(which, kind, forwards):
    model, (x, y) = Network(), data()
    runs = []
    model.action = lambda module: runs.append(1)
    prepared, views = build(model, x, which)
    head = prepared.linear_head(views, OMEGA, torch.float32)
    assert type(head) is kind
    with torch.inference_mode():
        head.score(rows(x, y))  # the first chunk finds out how much the shared prefix holds
        runs.clear()
        head.score(rows(x, y))
    assert len(runs) == forwards


def test_a_masked_head_equals_its_sub_models_run_one_by_one():
    model, (x, y) = Network(), data()
    prepared, views = build(model, x, "head")
    fast = prepared.linear_head(views, OMEGA, torch.float32)
    slow = LinearHead(views, OMEGA, model.fc)
    with torch.inference_mode():
        fast, slow = fast.score(rows(x, y)), slow.score(rows(x, y))
    torch.testing.assert_close(fast.log_probs, slow.log_probs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast.lc, slow.lc, rtol=0, atol=1e-6)


def test_labels_are_mapped_to_classes():
    model = Network()
    prepared, views = build(model, data()[0])
    head = prepared.linear_head(views, OMEGA, torch.float32)
    labels = torch.tensor([-1, 0, 3, 4, 10**12])
    assert head.class_index(labels).tolist() == [-1, 0, 3, -1, -1]
    assert head.reject_reason(4) == "the label is 4, but the head has 4 classes"
    sums = PrototypeSums()
    sums.add(torch.randn(3, 9), torch.tensor([7, 2, 10**12]))
    prototype = PrototypeHead(views, OMEGA, sums.means(), "cosine", 1.0)
    labels = torch.tensor([-1, 2, 3, 7, 10**12, 10**13])
    assert prototype.class_index(labels).tolist() == [-1, 0, -1, 1, 2, -1]


def test_infinite_features_give_no_score_though_their_softmax_is_finite():
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 3))
    with torch.no_grad():
        model[0].weight.fill_(1)
    sums = PrototypeSums()
    sums.add(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([0, 1]))
    x = torch.tensor([[1.0], [float("inf")]])
    head = PrototypeHead(build(model, x)[1], OMEGA, sums.means(), "inverse_distance", 1.0)
    with torch.inference_mode():
        scores = head.score(rows(x, torch.tensor([0, 1])))
    for part in (scores.lc, scores.loss, scores.log_probs[0]):
        assert part.isnan().tolist() == [False, True]


def test_a_classifier_that_is_not_linear_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(3, 2, 1))
    prepared = Prepared(model, "1", Masking(), PATH)
    with pytest.raises(ValueError, match='found "1", a Conv2d: name it with classifier='):
        prepared.linear_head(None, OMEGA, torch.float32)


def test_masked_head_in_bfloat16_keeps_the_masks_of_float32() -> None:
    torch.manual_seed(0)
    head = nn.Linear(48, 7)
    x, labels = torch.randn(90, 48), torch.randint(7, (90,))
    path, masking = LearningPath.linear(12, 0.1, 1.0), Masking(weights="head")
    batch = (x, labels)
    exact = Scorer(head, head="linear", path=path, masking=masking).score_batch(batch)
    short = Scorer(head, head="linear", path=path, masking=masking, dtype="bfloat16").score_batch(
        batch
    )
    saliency = head.weight.detach().abs()
    thresholds = torch.stack(
        [saliency.flatten().sort(descending=True).values[n - 1] for n in path.keep_counts(48 * 7)]
    )
    wanted = torch.stack(
        [
            nn.functional.linear(
                x.bfloat16().double(),
                torch.where(saliency >= t, head.weight.bfloat16().double(), 0),
                head.bias.double(),
            )
            .log_softmax(-1)
            .gather(-1, labels[:, None])
            .squeeze(-1)
            .exp()
            for t in thresholds
        ]
    ).mean(0)
    torch.testing.assert_close(short.lc.double(), wanted, rtol=0, atol=1e-5)
    assert not torch.equal(short.lc, exact.lc)
    torch.testing.assert_close(short.lc, exact.lc, rtol=0, atol=0.02)
