from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import tiny_vit
from lc_engine.backbone.early_exits import Exits


def test_every_block_is_an_exit(models):
    assert Exits().find(models["resnet18"], "fc") == tuple(
        f"layer{i}.{j}" for i in range(1, 5) for j in range(2)
    )
    assert Exits().find(tiny_vit(), "head") == ("blocks.0", "blocks.1", "blocks.2")
    lite0 = Exits().find(models["lite0"], "classifier")
    assert lite0[0] == "blocks.0.0"
    assert lite0[-1] == "blocks.6.0"
    assert len(lite0) == 16


def test_features_are_the_pooled_outputs_of_the_blocks(models, images):
    model, inputs = models["resnet18"], images[0][:3]
    scorer = lc.Scorer(model, masking=Exits(("layer1", "layer2", "layer4")))
    with torch.inference_mode():
        views = scorer._views(inputs)
        deep, middle, shallow = views.features(inputs, range(3))
        x = model.maxpool(model.act1(model.bn1(model.conv1(inputs))))
        one = model.layer1(x)
        two = model.layer2(one)
        four = model.layer4(model.layer3(two))
    for found, want in ((shallow, one), (middle, two), (deep, four)):
        torch.testing.assert_close(found, want.mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert scorer.path.capacities == (1.0, 2 / 3, 1 / 3)


def test_tokens_are_pooled_as_the_model_pools_them():
    model, x = tiny_vit(), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        found = lc.Scorer(model, masking=Exits())._views(x).features(x, [0])[0]
        tokens = model._pos_embed(model.patch_embed(x))
        for block in model.blocks:
            tokens = block(tokens)
        torch.testing.assert_close(found, tokens[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["prototype", "knn"])
def test_exits_score_a_data_set(head, models, images, tmp_path):
    inputs = torch.cat([images[0], images[0].flip(3)])
    labels = torch.arange(20).repeat(2) % 4
    scorer = lc.Scorer(models["resnet18"], head=head, masking=Exits(("layer1", "layer3")))
    table = lc.score(scorer, (inputs, labels), tmp_path / "scores", return_path=True)
    assert set(table.column("status").tolist()) == {"ok"}
    assert table.column("path_log_probs").shape == (40, 2)
    again = lc.score(scorer, (inputs, labels), tmp_path / "scores", return_path=True)
    assert again.table.equals(table.table)
    with pytest.raises(ValueError, match="exits bring their own"):
        lc.Scorer(models["resnet18"], masking=Exits(), path=lc.LearningPath.gauss())
    with pytest.raises(ValueError, match="exits have no classifier"):
        lc.Scorer(models["resnet18"], masking=Exits(), head="linear")


def test_exits_that_are_none_are_said(models):
    with pytest.raises(ValueError, match='no module "layer9"'):
        Exits(("layer9",)).find(models["resnet18"], "fc")
    with pytest.raises(ValueError, match="no chain of blocks"):
        Exits().find(nn.Linear(3, 2), "")
    with pytest.raises(ValueError, match="name each exit once"):
        Exits(("a", "a"))
