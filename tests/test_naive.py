from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import SmallNet
from lc_engine import naive
from lc_engine.ops import path_scores


def data(seed: int, rows: int = 23, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 3, 9, 9, generator=generator)
    return inputs, torch.randint(0, classes, (rows,), generator=generator)


class Reader:
    """Gives batches of 5 and counts how often the data were read from their start."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.batches = list(zip(inputs.split(5), labels.split(5), strict=True))
        self.times = 0

    def __call__(self):
        self.times += 1
        return iter(self.batches)


PATHS = {
    "geometric": lc.LearningPath.geometric(5, 0.2),
    "gauss": lc.LearningPath.gauss(4, 0.3, 1.0),
    "explicit": lc.LearningPath.explicit([1.0, 0.6, 0.1], [1, 2, 0]),
    "nothing left": lc.LearningPath.explicit([0.5, 1e-6]),
}
LOGITS = {
    "inverse_distance": (naive.inverse_distance, 1.0),
    "cosine": (naive.cosine, 0.1),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("way", [naive.prototype_loop, naive.released_way])
def test_the_naive_ways_give_the_numbers_of_the_engine(way, name, logit, seed):
    model, (inputs, labels) = SmallNet(seed), data(seed)
    path, (similarity, temperature) = PATHS[name], LOGITS[logit]
    found = way(
        naive.feature_extractor(model), Reader(inputs, labels), path, similarity, temperature
    )
    scorer = lc.Scorer(model, path=path, logit=logit, temperature=temperature)
    table = lc.score(scorer, (inputs, labels), return_path=True)
    torch.testing.assert_close(found.lc, torch.tensor(table.column("lc")), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, torch.tensor(table.column("loss")), atol=1e-4, rtol=1e-5)
    want = torch.tensor(table.column("path_log_probs")).T
    torch.testing.assert_close(found.log_probs, want, atol=1e-4, rtol=1e-5)


def test_how_often_each_way_reads_the_data():
    model, pair = SmallNet(0), data(0)
    extractor = naive.feature_extractor(model)
    for path, passes in ((PATHS["geometric"], 1 + 5), (PATHS["gauss"], 2 + 4)):
        once, often = Reader(*pair), Reader(*pair)
        naive.prototype_loop(extractor, once, path)
        naive.released_way(extractor, often, path)
        assert once.times == 1
        assert often.times == passes


def test_the_model_stays_as_it_was():
    model, pair = SmallNet(3).train(), data(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extractor = naive.feature_extractor(model)
    kept = {name: value.clone() for name, value in extractor.state_dict().items()}
    naive.prototype_loop(extractor, Reader(*pair), PATHS["gauss"])
    naive.released_way(extractor, Reader(*pair), PATHS["gauss"])
    assert model.training
    for module, values in ((model, before), (extractor, kept)):
        assert module.state_dict().keys() == values.keys()
        assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())


def test_the_extractor_gives_what_the_classifier_gets():
    model, (inputs, _) = SmallNet(1).eval(), data(1)
    torch.testing.assert_close(naive.feature_extractor(model)(inputs), model.body(inputs))
    with pytest.raises(ValueError, match="only a classifier: use linear_loop"):
        naive.feature_extractor(nn.Linear(3, 2))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", PATHS)
def test_the_linear_loop_gives_the_numbers_of_the_engine(name, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(37, 19, generator=generator)
    labels = torch.randint(0, 7, (37,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(19, 7)
    found = naive.linear_loop(features, labels, head, PATHS[name])
    scorer = lc.Scorer(head, head="linear", path=PATHS[name], masking=lc.Masking(weights="head"))
    want = scorer.score_batch((features, labels))
    torch.testing.assert_close(found.lc, want.lc, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, want.loss, atol=1e-4, rtol=1e-5)
    again = path_scores.finish(found.log_probs, torch.tensor(PATHS[name].weights), False)
    torch.testing.assert_close(found.lc, again.lc, atol=1e-6, rtol=0)
