"""Vision models of Hugging Face: small configurations with seeded weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.plain_loop import PlainLoop
from lc_engine.data.open import open_source

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "window_size": 4}
LABELLED = {
    "ViT": ("classifier", SMALL),
    "DeiT": ("classifier", SMALL),
    "Dinov2": ("classifier", SMALL),
    "Beit": ("classifier", SMALL),
    "ResNet": ("classifier.1", STAGES | {"embedding_size": 8, "layer_type": "basic"}),
    "ConvNext": ("classifier", STAGES | {"num_stages": 2}),
    "Swin": ("classifier", SWIN | {"num_heads": [1, 2]}),
}


def make(name: str, task: str, settings: dict[str, object], **more: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings, **more)
        return getattr(transformers, name + task)(config).eval()


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 32, 32, generator=generator), torch.arange(6) % 3


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.m = model

    def forward(self, x):
        return self.m(x).logits


@pytest.mark.parametrize("name", LABELLED)
def test_scores_of_a_classifier_are_those_of_a_plain_loop(name, data):
    classifier, settings = LABELLED[name]
    model = make(name, "ForImageClassification", settings, num_labels=3)
    path = lc.LearningPath.explicit([1.0, 0.8, 0.5])
    scorer = lc.Scorer(model, head="linear", path=path)
    found = scorer.score_batch(data)
    assert scorer.describe()["head"]["classifier"] == classifier
    loop = PlainLoop(_Logits(model), f"m.{classifier}")
    with torch.inference_mode():
        sub_models = loop.masked(path.capacities, kind="magnitude", scope="global", which="body")
        p = torch.stack([loop.linear(weights, *data) for weights in sub_models])
    torch.testing.assert_close(found.log_probs.double(), p.log(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ViT", SMALL), ("Dinov2", SMALL), ("CLIPVision", SMALL), ("ResNet", LABELLED["ResNet"][1])],
)
def test_a_base_model_gives_its_pooled_output_as_features(name, settings, data):
    model = make(name, "Model", settings)
    scorer = lc.Scorer(model, path=lc.LearningPath.explicit([1.0, 0.8]))
    assert scorer.describe()["head"]["classifier"] is None
    with torch.inference_mode():
        pooled = model(data[0]).pooler_output.flatten(1)
    means = scorer.fit(open_source(data)).prototypes
    assert means is not None
    want = torch.stack([pooled[data[1] == c].mean(0) for c in range(3)])
    torch.testing.assert_close(means.means, want.to(means.means.dtype), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"classifier is a Linear module, found none"):
        lc.Scorer(model, head="linear").score_batch(data)


@pytest.mark.parametrize("name", ["ViT", "ResNet", "Swin"])
def test_exits_are_its_blocks(name, data):
    model = make(name, "ForImageClassification", LABELLED[name][1], num_labels=3)
    scorer = lc.Scorer(model, masking=lc.Exits())
    assert len(scorer.path) == 2
    assert lc.score(scorer, data).status_counts() == {"ok": 6}
