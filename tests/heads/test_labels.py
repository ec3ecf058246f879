"""Votes and no labels against plain torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import lc_engine as lc
from helpers.masked_weights import largest_kept
from lc_engine.data.open import open_source
from lc_engine.heads.prototype import Prototypes

ROWS, CLASSES = 30, 4
PATH = lc.LearningPath.explicit([1.0, 0.6, 0.3])
WITHOUT_WHOLE = lc.LearningPath.explicit([0.7, 0.4])


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, CLASSES)).eval()


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def votes():
    return torch.randint(0, 5, (ROWS, CLASSES), generator=torch.Generator().manual_seed(2)) + (
        torch.arange(ROWS)[:, None] % CLASSES == torch.arange(CLASSES)
    )


def masked(model, path, name):
    """The weight of one layer under each sub-model, and whole, in float64."""
    return largest_kept({name: model.state_dict()[name].double()}, (*path.capacities, 1.0))


def log_probs(model, inputs, path, name):
    """log p (K + 1, N, C), the whole model last."""
    wide = {key: value.double() for key, value in model.state_dict().items()}
    with torch.no_grad():
        logits = [
            functional_call(model, wide | one, inputs.double()) for one in masked(model, path, name)
        ]
    return torch.stack(logits).log_softmax(2)


def prototype_log_probs(model, inputs, path, means):
    wide = {key: value.double() for key, value in model.state_dict().items()}
    found = []
    for one in masked(model, path, "0.weight"):
        with torch.no_grad():
            features = functional_call(
                nn.Sequential(model[0], model[1]),
                {key: value for key, value in (wide | one).items() if key[0] == "0"},
                inputs.double(),
            )
        distances = (features[:, None] - means[None]).square().sum(2).sqrt()
        found.append((1 / distances).log_softmax(1))
    return torch.stack(found)


def settings(which, path):
    masking = lc.Masking(weights="head" if which == "head" else "body")
    head = "prototype" if which == "prototype" else "linear"
    return {"head": head, "masking": masking, "path": path}


def expected(which, model, inputs, path):
    """log p, and the scorer's prototypes."""
    if which != "prototype":
        name = "2.weight" if which == "head" else "0.weight"
        return log_probs(model, inputs, path, name), None
    means = torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(5))
    prototypes = Prototypes(torch.arange(CLASSES), means, torch.ones(CLASSES, dtype=torch.int64))
    return prototype_log_probs(model, inputs, path, means.double()), prototypes


@pytest.mark.parametrize("which", ["body", "head", "prototype"])
def test_votes_give_the_expected_log_likelihood(which, model, inputs, votes):
    scorer = lc.Scorer(model, labels="soft", **settings(which, PATH))
    log_p, prototypes = expected(which, model, inputs, PATH)
    if prototypes is not None:
        scorer.use_prototypes(prototypes)
    found = lc.score(scorer, (inputs, votes), return_path=True)
    q = votes.double() / votes.sum(1, keepdim=True)
    want = (q * log_p[:-1]).sum(2)
    np.testing.assert_allclose(found.column("path_log_probs").T, want, rtol=1e-5, atol=1e-5)
    omega = torch.tensor(PATH.weights)[:, None]
    np.testing.assert_allclose(found.column("lc"), (omega * want.exp()).sum(0), rtol=1e-5)
    assert (found.column("label") == votes.argmax(1).numpy()).all()
    assert found.metadata["head"]["labels"] == "soft"


def test_votes_for_one_class_are_its_label(model, inputs):
    labels = torch.arange(ROWS) % CLASSES
    settings = {"head": "linear", "path": PATH}
    hard = lc.score(lc.Scorer(model, **settings), (inputs, labels))
    sure = nn.functional.one_hot(labels, CLASSES).double()
    soft = lc.score(lc.Scorer(model, labels="soft", **settings), (inputs, sure))
    np.testing.assert_allclose(soft.column("lc"), hard.column("lc"), rtol=1e-6)


def test_class_means_of_votes_are_those_of_the_most_probable_class(model, inputs, votes):
    soft = lc.Scorer(model, labels="soft", path=PATH)
    rows = [(x, q) for x, q in zip(inputs, votes, strict=True)]
    soft.fit(open_source(rows, label_kind="soft"))
    hard = lc.Scorer(model, path=PATH).fit(open_source((inputs, votes.argmax(1))))
    assert soft.prototypes.digest == hard.prototypes.digest


@pytest.mark.parametrize("path", [PATH, WITHOUT_WHOLE], ids=["whole", "without"])
@pytest.mark.parametrize("which", ["body", "head", "prototype"])
def test_no_labels_give_the_largest_probability_and_the_agreement(which, path, model, inputs):
    scorer = lc.Scorer(model, labels=None, **settings(which, path))
    log_p, prototypes = expected(which, model, inputs, path)
    if prototypes is not None:
        scorer.use_prototypes(prototypes)
    found = lc.score(scorer, (inputs, torch.full((ROWS,), -1)), return_path=True)
    assert found.status_counts() == {"ok": ROWS}
    best = log_p.max(2)
    want = best.values[:-1]
    np.testing.assert_allclose(found.column("path_log_probs").T, want, rtol=1e-5, atol=1e-5)
    omega = torch.tensor(path.weights)[:, None]
    agreement = (omega * (best.indices[:-1] == best.indices[-1])).sum(0)
    np.testing.assert_allclose(found.column("agreement"), agreement, rtol=1e-6)
    assert 0 < (found.column("agreement") < 1).sum() < ROWS


def test_rows_with_another_number_of_votes_do_not_move_the_class_means(model, inputs, votes):
    rows = list(zip(inputs, votes.double(), strict=True))
    odd = [(x + 3, torch.tensor([0.0, 4.0, 0.0])) for x in inputs[:5]]
    odd += [(x - 3, torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])) for x in inputs[:5]]
    scorer = lc.Scorer(model, labels="soft", path=PATH)
    want = lc.score(scorer, rows)
    found = lc.score(scorer, odd[:5] + rows + odd[5:], batch_size=7)
    assert found.status_counts() == {"ok": ROWS, "bad_label": 10}
    np.testing.assert_allclose(found.column("lc")[5:-5], want.column("lc"), rtol=1e-5)


def test_rows_that_do_not_fit_have_a_status(model, inputs, votes):
    bad = [*votes.double()[:8]]
    bad[1], bad[2], bad[3] = torch.zeros(CLASSES), torch.tensor([1.0, -1, 1, 0]), torch.tensor(2)
    bad[4], bad[5] = torch.ones(CLASSES + 1), torch.ones(CLASSES - 1)
    rows = list(zip(inputs, bad, strict=False))
    found = lc.score(lc.Scorer(model, head="linear", labels="soft", path=PATH), rows)
    assert found.status_counts() == {"ok": 3, "bad_label": 5}
    details = found.column("detail")
    assert "a number from 0 on per class" in details[1]
    assert "classes up to 3" in details[5]
    assert "are for classes that the head does not have" in details[4]


def test_no_row_of_a_batch_that_is_ok_still_has_the_column(model, inputs):
    x = inputs.clone()
    x[:4] = torch.nan
    scorer = lc.Scorer(model, head="linear", labels=None, path=PATH)
    found = lc.score(scorer, (x, torch.zeros(ROWS, dtype=torch.int64)), batch_size=4)
    assert np.isnan(found.column("agreement")[:4]).all()
    assert np.isfinite(found.column("agreement")[4:]).all()


def test_what_cannot_be_is_refused(model, inputs):
    for options, says in (
        ({"labels": "soft", "head": "knn"}, "which a knn head does not give"),
        ({"labels": None, "head": lc.Loss(print)}, "which a loss head does not give"),
        ({"labels": "hard"}, 'labels must be "class", "soft" or None'),
        ({"labels": None, "tol": 0.1, "path": lc.LearningPath.clenshaw_curtis(5)}, "tol is for"),
    ):
        with pytest.raises(ValueError, match=says):
            lc.Scorer(model, **options)
    with pytest.raises(ValueError, match="class means are learnt from labels"):
        lc.score(lc.Scorer(model, labels=None), (inputs, torch.zeros(ROWS, dtype=torch.int64)))
    source = open_source((inputs, torch.zeros(ROWS, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"pass label_kind=scorer\.label_kind"):
        lc.score(lc.Scorer(model, head="linear", labels="soft"), source)
