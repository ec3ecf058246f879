from __future__ import annotations

import argparse
import json
import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lc_engine.models.load import ModelSpec
from lc_engine.models.state_dict import load_state, read_checkpoint


def make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def loaded(file) -> nn.Module:
    return ModelSpec(f"{__name__}:make_net", str(file)).load().model


def assert_same(model, state):
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture
def state():
    return {
        name: torch.rand_like(v, dtype=torch.float32).to(v.dtype)
        for name, v in make_net().state_dict().items()
    }


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."),
        *("model.", "net.", "backbone.", "_orig_mod.model.", "model._orig_mod.", "a.b.c."),
    ],
)
def test_a_prefix_of_all_names_is_taken_off(tmp_path, state, prefix, caplog):
    file = tmp_path / "a.pt"
    torch.save({"state_dict": prefixed(state, prefix)}, file)
    with caplog.at_level(logging.INFO, logger="lc_engine"):
        assert_same(loaded(file), state)
    said = prefix.replace("module.", "").replace("_orig_mod.", "") != ""
    assert ("is taken off every name" in caplog.text) == said


def test_a_prefix_that_others_share_not_is_named(tmp_path, state):
    file = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": prefixed(state, "model.") | {"loss.weight": torch.ones(2)}}, file)
    with pytest.raises(ValueError, match=r'names begin with "model\.", .* such as loss\.weight'):
        loaded(file)


def test_a_network_whose_names_have_the_prefix_keeps_it():
    net = nn.ModuleDict({"model": nn.Linear(2, 2)})
    other = nn.ModuleDict({"model": nn.Linear(2, 2)})
    load_state(net, other.state_dict(), "a.pt")
    assert_same(net, other.state_dict())


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
def test_the_average_of_the_weights_is_taken_and_said(tmp_path, state, average, caplog):
    from timm.models import load_state_dict

    file = tmp_path / "a.pth.tar"
    ema = {name: value + 1 for name, value in state.items()}
    options = argparse.Namespace(lr=0.1)
    torch.save({"state_dict": state, average: prefixed(ema, "module."), "args": options}, file)
    with caplog.at_level(logging.INFO, logger="lc_engine"):
        found = read_checkpoint(file)
    assert f'"{average}", the average of the weights, is taken' in caplog.text
    theirs = load_state_dict(str(file))
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], theirs[name]) for name in found)
    assert torch.equal(found["0.weight"], ema["0.weight"])


def shards(folder, state, kind):
    """Write a state dict as two files and their index."""
    suffix = "safetensors" if kind == "model" else "bin"
    names = list(state)
    files = {}
    for i, part in enumerate((names[:3], names[3:])):
        name = f"{kind}-0000{i + 1}-of-00002.{suffix}"
        tensors = {n: state[n] for n in part}
        save_file(tensors, folder / name) if kind == "model" else torch.save(tensors, folder / name)
        files |= dict.fromkeys(part, name)
    index = folder / f"{kind}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


@pytest.mark.parametrize("kind", ["model", "pytorch_model"])
@pytest.mark.parametrize("by", ["folder", "index"])
def test_shards_are_read_by_their_index(tmp_path, state, kind, by):
    index = shards(tmp_path, state, kind)
    assert_same(loaded(tmp_path if by == "folder" else index), state)


def test_a_folder_with_one_file_is_read(tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    assert_same(loaded(tmp_path), state)


def test_shards_that_do_not_fit_their_index_are_named(tmp_path, state):
    with pytest.raises(FileNotFoundError, match="has no weights: it needs one of "):
        read_checkpoint(tmp_path)
    index = shards(tmp_path, state, "model")
    content = json.loads(index.read_text())
    content["weight_map"]["lost"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index\.json lack lost: copy or download them again"):
        read_checkpoint(tmp_path)
    content["weight_map"]["lost"] = "../model.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="which is not in its folder"):
        read_checkpoint(index)
    content["weight_map"]["lost"] = "gone.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors does not exist"):
        read_checkpoint(index)
    index.write_text("{}")
    with pytest.raises(ValueError, match='has no "weight_map"'):
        read_checkpoint(index)
    index.write_text("{")
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        read_checkpoint(index)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_head_in_float8_is_read_in_float32(tmp_path, dtype, suffix, scaled):
    file = tmp_path / f"head{suffix}"
    stored = torch.randn(5, 6).to(dtype)
    state = {"weight": stored, "bias": torch.randn(5)}
    scale = torch.rand(5, 1) if scaled else torch.ones(5, 1)
    if scaled:
        state["weight_scale"] = scale
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    head = ModelSpec(str(file)).load().model
    assert head.weight.dtype == torch.float32
    assert torch.equal(head.weight, stored.float() * scale)
    assert torch.equal(head.bias, state["bias"])
