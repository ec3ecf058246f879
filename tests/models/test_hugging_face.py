"""Models of images of Hugging Face by folder, and prompts of classes, against a plain loop."""

from __future__ import annotations

import copy
import json

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torch.nn import functional

import lc_engine as lc
from helpers import tiny_encoder
from helpers import tiny_vision as tiny
from helpers.masked_weights import largest_kept
from lc_engine.heads.prompts import prompt_prototypes
from lc_engine.language.model import is_language_model
from lc_engine.models.hugging_face import is_encoder

PATH = lc.LearningPath.explicit([1.0, 0.7, 0.4])
PROMPTS = ["a cat", "the dog", "a red tree"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    tiny.pictures(folder, 3, 4)
    return folder


@pytest.fixture(scope="module")
def pixels(photos):
    images = [PIL.Image.open(path) for path in sorted(photos.glob("*/*.png"))]
    return tiny.processor()(images=images, return_tensors="pt")["pixel_values"].double()


def loop(model, pixels, head, inside, found):
    """Run the model with the weights below some modules masked."""
    model = copy.deepcopy(model).double()
    weights = {
        name: module.in_proj_weight if isinstance(module, nn.MultiheadAttention) else module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
        and name != head
        and name.startswith(inside)
    }
    pristine = {name: weight.detach().clone() for name, weight in weights.items()}
    every = []
    with torch.no_grad():
        for masked in largest_kept(pristine, PATH.capacities):
            for name, weight in weights.items():
                weight.copy_(masked[name])
            every.append(found(model, pixels))
    return torch.stack(every)


def check(table, want):
    np.testing.assert_allclose(table.column("path_log_probs").T, want, rtol=1e-4, atol=1e-5)
    omega = torch.tensor(PATH.weights, dtype=torch.float64)
    np.testing.assert_allclose(table.column("lc"), omega @ want.exp(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["ViT", "Dinov2"])
def test_a_folder_with_a_processor_is_a_model_of_images(family, photos, pixels, tmp_path):
    folder = tiny.save(tmp_path, family, "ForImageClassification", num_labels=3)
    assert is_encoder(folder)
    assert not is_language_model(folder)
    table = lc.score(lc.Scorer(folder, head="linear", path=PATH), photos, return_path=True)
    model = tiny.make(family, "ForImageClassification", num_labels=3)
    log_p = loop(model, pixels, "classifier", "", lambda m, x: m(x).logits.log_softmax(1))
    check(table, log_p[:, torch.arange(12), torch.arange(12) // 4])


@pytest.mark.parametrize("labels", ["class", None])
@pytest.mark.parametrize("family", ["CLIP", "Siglip"])
def test_prompts_take_the_place_of_class_means(family, labels, photos, pixels, tmp_path):
    folder = tiny.save(tmp_path, family, "Model")
    model = tiny.make(family, "Model").double()
    prototypes, temperature = prompt_prototypes(folder, PROMPTS)
    scorer = lc.Scorer(folder, logit="cosine", temperature=temperature, labels=labels, path=PATH)
    table = lc.score(scorer.use_prototypes(prototypes), photos, return_path=True)
    tokens = tiny_encoder.tokenizer("Roberta")(PROMPTS, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        texts = functional.normalize(model.get_text_features(**tokens).pooler_output)
    scale = model.logit_scale.exp().detach()

    def cosines(m, x):
        images = functional.normalize(m.get_image_features(x).pooler_output)
        return (scale * images @ texts.T).log_softmax(1)

    inside = ("vision_model", "visual_projection")
    log_p = loop(model, pixels, None, inside, cosines)
    if labels is None:
        check(table, log_p.amax(2))
        same = (log_p.argmax(2) == log_p[0].argmax(1)).double()
        omega = torch.tensor(PATH.weights, dtype=torch.float64)
        np.testing.assert_allclose(table.column("agreement"), omega @ same, rtol=1e-6)
    else:
        check(table, log_p[:, torch.arange(12), torch.arange(12) // 4])


def test_prompts_that_do_not_fit_are_refused(photos, tmp_path):
    folder = tiny.save(tmp_path / "clip", "CLIP", "Model")
    prototypes, temperature = prompt_prototypes(folder, PROMPTS[:2])
    scorer = lc.Scorer(folder, logit="cosine", temperature=temperature)
    with pytest.raises(ValueError, match="there are 2 prototypes, but the data have 3 classes"):
        lc.score(scorer.use_prototypes(prototypes), photos)
    for prompts, says in (
        (["a cat", "a dog", " a cat"], "prompts must be distinct, .*: prompt 3, 'a cat', is there"),
        (["a cat", " ", "a dog"], "prompts must be distinct, one per class: one is empty"),
        (["a cat"], "prompts must be two at least, one per class, got 1"),
        (["a cat", "red tree " * 80], r"'red tree .* tokens, the model reads \d+: make it shorter"),
    ):
        with pytest.raises(ValueError, match=says):
            prompt_prototypes(folder, prompts)
    texts = tiny_encoder.save(tmp_path / "bert", "Bert", "Model")
    with pytest.raises(ValueError, match="does not map texts and images to one space"):
        prompt_prototypes(texts, PROMPTS)


def test_a_pooler_that_the_checkpoint_lacks_is_not_used(photos, pixels, tmp_path):
    folder = tiny.save(tmp_path / "vit", "ViT", "ForImageClassification", num_labels=3)
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    config["architectures"] = ["ViTModel"]
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    table = lc.score(lc.Scorer(folder, path=PATH), photos, return_path=True)
    whole = tiny.make("ViT", "ForImageClassification", num_labels=3)

    def states(m, x):
        return m.vit(x).last_hidden_state[:, 0]

    features = loop(whole, pixels, "classifier", "vit", states)
    means = features[0].view(3, 4, -1).mean(1)
    distances = (features[:, :, None] - means).square().sum(3).sqrt()
    log_p = (1 / distances).log_softmax(2)
    check(table, log_p[:, torch.arange(12), torch.arange(12) // 4])


def test_a_folder_of_a_language_model_stays_one(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    assert not is_encoder(str(tmp_path))
    assert is_language_model(str(tmp_path))
