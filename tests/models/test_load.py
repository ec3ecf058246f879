from __future__ import annotations

import io
import pickle
import sys

import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.realdata import image_files
from lc_engine._util.extras import MissingExtraError
from lc_engine.models.load import ModelSpec
from lc_engine.models.state_dict import load_state, read_checkpoint


@pytest.mark.slow
def test_efficientnet_lite0_knows_real_images():
    loaded = ModelSpec("efficientnet-lite0").load()
    files = image_files()
    inputs = torch.stack(
        [
            loaded.transform(PIL.Image.open(io.BytesIO(content)).convert("RGB"))
            for _, content, _ in files
        ]
    )
    assert inputs.shape == (20, 3, 224, 224)
    with torch.inference_mode():
        found = loaded.model(inputs).argmax(1)
    assert int((found == torch.tensor([label for *_, label in files])).sum()) >= 18
    assert not loaded.model.training


def test_the_transform_is_the_one_the_weights_want():
    grey = PIL.Image.new("RGB", (50, 40), (127, 255, 0))
    loaded = ModelSpec("efficientnet-lite0", image_size=32).load()
    pixel = loaded.transform(grey)[:, 16, 16]
    torch.testing.assert_close(pixel, torch.tensor([0.0, 1.0, -127 / 128]), atol=1e-6, rtol=0)
    assert loaded.transform(grey).shape == (3, 32, 32)
    again = ModelSpec("efficientnet-lite0", image_size=32).load()
    assert repr(again.transform) == repr(loaded.transform)  # it goes into the manifest of a run


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("classes", [1000, 7])
@pytest.mark.parametrize("name", ["timm/resnet10t", "torchvision/mobilenet_v3_small"])
def test_a_checkpoint_brings_its_own_head(tmp_path, suffix, classes, name):
    library, _, short = name.partition("/")
    if library == "timm":
        model = timm.create_model(short, num_classes=classes)
    else:
        from torchvision.models import get_model

        model = get_model(short, num_classes=classes)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, file)
    else:
        save_file(model.state_dict(), file)
    loaded = ModelSpec(name, str(file), image_size=64).load()
    own, want = loaded.model.state_dict(), model.state_dict()
    assert own.keys() == want.keys()
    assert all(torch.equal(own[n], want[n]) for n in want)
    image = PIL.Image.new("RGB", (90, 70))
    with torch.inference_mode():
        assert loaded.model(loaded.transform(image)[None]).shape == (1, classes)


@pytest.mark.slow
def test_a_model_of_fixed_input_size_is_built_for_the_size(tmp_path):
    model = timm.create_model("test_vit", num_classes=3, img_size=64)
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    loaded = ModelSpec("timm/test_vit", str(tmp_path / "vit.pt"), image_size=64).load()
    assert loaded.model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_checkpoint_that_does_not_fit_is_described(tmp_path):
    file = tmp_path / "wrong.pt"
    state = timm.create_model("resnet10t", num_classes=5).state_dict()
    del state["layer1.0.conv1.weight"]
    state["extra.weight"] = torch.ones(2)
    state["layer2.0.conv1.weight"] = torch.ones(1, 2)
    torch.save(state, file)
    with pytest.raises(ValueError, match="does not fit ResNet") as error:
        ModelSpec("timm/resnet10t", str(file)).load()
    assert "missing 1: layer1.0.conv1.weight" in str(error.value)
    assert "unknown 1: extra.weight" in str(error.value)
    assert "layer2.0.conv1.weight (1, 2) where the model has" in str(error.value)


class Payload:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_checkpoint_with_code_in_it_is_refused_unrun(tmp_path, capsys):
    file = tmp_path / "code.pt"
    torch.save({"a": Payload()}, file)
    with pytest.raises(ValueError, match="cannot be read as tensors only"):
        read_checkpoint(file)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pt", b"not a checkpoint"),
        ("a.pt", b""),
        ("a.safetensors", b"12345678"),
        ("a.bin", b"\x80"),
    ],
)
def test_a_damaged_checkpoint_is_said(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_checkpoint(tmp_path / name)


def test_other_files_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pt does not exist"):
        read_checkpoint(tmp_path / "none.pt")
    for value in ({}, [torch.ones(2)], {"a": 3}):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(ValueError, match="must hold a state dict"):
            read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "fc."])
def test_a_file_with_one_linear_layer_is_a_head(tmp_path, bias, prefix):
    head = nn.Linear(6, 4, bias=bias)
    file = tmp_path / "head.safetensors"
    save_file({prefix + n: value for n, value in head.state_dict().items()}, file)
    loaded = ModelSpec(str(file)).load()
    x = torch.randn(3, 6)
    assert torch.equal(loaded.model(x), head(x))
    assert loaded.transform is None


def test_a_file_with_more_than_a_head_is_not_one(tmp_path):
    file = tmp_path / "whole.safetensors"
    save_file(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).state_dict(), file)
    with pytest.raises(
        ValueError, match=r"must hold one linear layer.*give this file as checkpoint="
    ):
        ModelSpec(str(file)).load()
    save_file(nn.Linear(3, 2).state_dict(), file)
    with pytest.raises(ValueError, match="takes no checkpoint"):
        ModelSpec(str(file), checkpoint=str(file)).load()


def make_net() -> nn.Module:
    return nn.Linear(4, 2)


def make_pair():
    return nn.Linear(4, 2), torch.tensor


def make_nothing() -> int:
    return 3


def test_a_factory_of_the_user(tmp_path):
    assert isinstance(ModelSpec(f"{__name__}:make_net").load().model, nn.Linear)
    assert ModelSpec(f"{__name__}:make_pair").load().transform is torch.tensor
    file = tmp_path / "net.pt"
    weights = nn.Linear(4, 2).state_dict()
    torch.save(weights, file)
    loaded = ModelSpec(f"{__name__}:make_net", str(file)).load()
    assert torch.equal(loaded.model.weight, weights["weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is not known; give timm/NAME"),
        ("timm/", "is not known"),
        ("timm/resnet1800", "timm has no model 'resnet1800'; near it: "),
        ("torchvision/nothing", "torchvision has no model 'nothing'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        (f"{__name__}:no_such_function", f"module {__name__} has no 'no_such_function'"),
        (f"{__name__}:make_nothing", "must return a torch.nn.Module.*got int"),
    ],
)
def test_unknown_models_are_said(name, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(name).load()


def test_weights_that_cannot_be_downloaded_are_said(monkeypatch):
    def offline(name, pretrained=False, **more):
        raise OSError("cannot reach the hub\nmore lines")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ValueError, match=r"weights of timm/resnet10t could not be loaded .*hub\): "
    ):
        ModelSpec("timm/resnet10t").load()


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18", "efficientnet-lite0"])
def test_a_missing_extra_is_named(monkeypatch, name):
    for module in ("timm", "torchvision.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "lc_engine\[vision\]"'):
        ModelSpec(name).load()


def test_a_spec_is_small_and_equal():
    spec = ModelSpec("timm/resnet18", "a.pt", 96)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_counter_that_old_checkpoints_lack_is_no_complaint():
    norm = nn.BatchNorm1d(3)
    state = {n: v + 1 for n, v in norm.state_dict().items() if n != "num_batches_tracked"}
    load_state(norm, state, "old.pt")
    assert torch.equal(norm.running_mean, torch.ones(3))
