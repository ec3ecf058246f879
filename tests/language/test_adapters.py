from __future__ import annotations

import importlib.util
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import tiny_language_model as tiny
from lc_engine.language.model import LanguageModelSpec, is_language_model

PREFIX = "base_model.model."
Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"


def write_adapter(path, base, ranks, suffix=".safetensors", **config):
    """Write a LoRA of the `peft` format with random weights, and return them."""
    path.mkdir(exist_ok=True)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": None if base is None else str(base),
        "r": 4,
        "lora_alpha": 6,
        "bias": "none",
        "init_lora_weights": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in ranks}),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "inference_mode": True,
    }
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    tensors = {}
    for name, (outputs, rank, inputs) in ranks.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(rank, inputs)
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.randn(outputs, rank)
    file = path / f"adapter_model{suffix}"
    save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)
    return tensors


RANKS = {Q: (32, 4, 32), UP: (48, 4, 32)}


def loaded(path, dtype="float32"):
    return LanguageModelSpec(str(path), dtype).load()[0]


def assert_merged(model, base, tensors, scales):
    """Check every weight: W + s B A where there is an adapter, else W."""
    for name, value in base.state_dict().items():
        found = model.state_dict()[name]
        module = name.removesuffix(".weight")
        if module not in scales:
            assert torch.equal(found, value), name
            continue
        a = tensors[f"{PREFIX}{module}.lora_A.weight"].double()
        b = tensors[f"{PREFIX}{module}.lora_B.weight"].double()
        want = value.double() + scales[module] * (b @ a)
        # A float32 product of rank 4, whose terms reach about 20.
        torch.testing.assert_close(found.double(), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("where", ["elsewhere", "beside", "relative"])
def test_an_adapter_is_merged_into_its_base(folder, tmp_path, suffix, where):
    path = tmp_path / "adapter"
    base = folder
    if where == "beside":
        shutil.copytree(folder, path)
        base = "of/somebody"
    elif where == "relative":
        shutil.copytree(folder, tmp_path / "base")
        base = "../base"
    tensors = write_adapter(path, base, RANKS, suffix)
    assert is_language_model(str(path))
    assert_merged(loaded(path), loaded(folder), tensors, {Q: 6 / 4, UP: 6 / 4})


def test_a_relative_base_is_that_beside_the_adapter_or_of_the_working_directory(
    folder, tmp_path, monkeypatch
):
    path = tmp_path / "adapters" / "adapter"
    path.parent.mkdir()
    tensors = write_adapter(path, "../base", RANKS)
    shutil.copytree(folder, tmp_path / "adapters" / "base")
    (tmp_path / "base").mkdir()  # of something else
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert_merged(loaded(path), loaded(folder), tensors, {Q: 6 / 4, UP: 6 / 4})
    shutil.copytree(folder, tmp_path / "base", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="one model in the working directory and another beside"):
        loaded(path)


def test_patterns_and_rslora_set_the_scale_of_each_module(folder, tmp_path):
    ranks = {Q: (32, 2, 32), UP: (48, 4, 32), UP.replace("1", "0"): (48, 4, 32)}
    patterns = {
        "rank_pattern": {"self_attn.q_proj": 2},
        "alpha_pattern": {"layers.1.mlp.up_proj": 10, "up_proj": 3},
    }
    path = tmp_path / "adapter"
    tensors = write_adapter(path, folder, ranks, use_rslora=True, **patterns)
    scales = {Q: 6 / math.sqrt(2), UP: 10 / 2, UP.replace("1", "0"): 3 / 2}
    assert_merged(loaded(path), loaded(folder), tensors, scales)


def test_a_merge_is_rounded_once(folder, tmp_path):
    path = tmp_path / "adapter"
    write_adapter(path, folder, RANKS)
    base = loaded(folder, "bfloat16").get_parameter(f"{Q}.weight").float()
    found = loaded(path, "bfloat16").get_parameter(f"{Q}.weight")
    adapter = load_file(path / "adapter_model.safetensors")
    a, b = (adapter[f"{PREFIX}{Q}.lora_{which}.weight"] for which in "AB")
    assert torch.equal(found, (base + b @ a * 1.5).bfloat16())


def test_the_weight_of_conv1d_is_turned(tmp_path):
    config = GPT2Config(vocab_size=270, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    made = GPT2LMHeadModel(config)
    made.save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    name = "transformer.h.0.attn.c_attn"
    ranks = {name: (96, 4, 32)}
    tensors = write_adapter(tmp_path / "a", tmp_path / "base", ranks, fan_in_fan_out=True)
    a, b = (tensors[f"{PREFIX}{name}.lora_{which}.weight"] for which in "AB")
    found = loaded(tmp_path / "a").get_parameter(f"{name}.weight")
    want = made.get_parameter(f"{name}.weight") + (b @ a * 1.5).T
    torch.testing.assert_close(found, want)


def test_the_tokenizer_beside_an_adapter_is_taken(folder, tmp_path):
    path = tmp_path / "adapter"
    write_adapter(path, folder, RANKS)
    changed = tiny.tokenizer("{{ messages }}")
    changed.save_pretrained(path)
    assert LanguageModelSpec(str(path), "float32").load()[1].chat_template == "{{ messages }}"


def test_peft_changes_nothing(folder, tmp_path, monkeypatch):
    """Whether `transformers` sees peft or not: the adapter is merged here."""
    from transformers.integrations import peft

    path = tmp_path / "adapter"
    shutil.copytree(folder, path)
    write_adapter(path, None, RANKS)
    found = []
    for installed in (True, False):
        monkeypatch.setattr(peft, "is_peft_available", lambda installed=installed: installed)
        found.append(loaded(path).state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# peft asks transformers for a name that is deprecated.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.parametrize("rslora", [True, False])
def test_a_merge_is_that_of_peft(folder, tmp_path, rslora):
    import peft

    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "down_proj", "up_proj"],
        rank_pattern={"q_proj": 2},
        alpha_pattern={"layers.0.mlp.up_proj": 3},
        use_rslora=rslora,
        init_lora_weights=False,
    )
    adapted = peft.get_peft_model(loaded(folder), config)
    adapted.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = str(folder)
    (tmp_path / "adapter_config.json").write_text(json.dumps(written))
    want = adapted.merge_and_unload().state_dict()
    found = loaded(tmp_path).state_dict()
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "uses use_dora, which a plain LoRA has not: merge it with peft"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"trainable_token_indices": [3]}, "uses trainable_token_indices"),
        ({"of_next_year": 7, "lora_bias": True}, "uses lora_bias, of_next_year"),
        ({"bias": "lora_only"}, "uses bias"),
        ({"peft_type": "IA3"}, "is of the type IA3, not LORA"),
        ({"init_lora_weights": "pissa"}, "begun with init_lora_weights='pissa', which changes"),
        ({"r": 8}, "states rank 8 for .*, and its weights have 4"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(folder, tmp_path, config, message):
    write_adapter(tmp_path, folder, RANKS, **config)
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"model.layers.7.q_proj": (32, 4, 32)}, r"1 modules .* such as model\.layers\.7\.q_proj"),
        ({Q: (48, 4, 32)}, r"it adds \(48, 32\) to .*q_proj\.weight, which has \(32, 32\)"),
        ({"lm_head": (270, 4, 32)}, r"changes lm_head\.weight, which is tied to model\.embed_tok"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused(folder, tmp_path, ranks, message):
    write_adapter(tmp_path, folder, ranks)
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.lora_embedding_A", (4, 270)),
        ("lm_head.weight", (270, 32)),
        (f"{Q}.lora_magnitude_vector", (32,)),
        (f"{Q}.lora_A.weight", (4, 32, 1, 1)),
    ],
)
def test_tensors_that_a_plain_lora_has_not_are_refused_by_name(folder, tmp_path, name, shape):
    tensors = write_adapter(tmp_path, folder, RANKS)
    tensors[PREFIX + name] = torch.ones(shape)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=f"holds {PREFIX}{name}"):
        loaded(tmp_path)


def test_an_adapter_without_its_base_says_what_to_do(tmp_path):
    write_adapter(tmp_path, None, RANKS)
    with pytest.raises(ValueError, match=r"names none: put the base's files into the adapter's"):
        loaded(tmp_path)
    write_adapter(tmp_path, "/no/such/base", RANKS)
    with pytest.raises(ValueError, match=r"its base is '/no/such/base': put the base's files"):
        loaded(tmp_path)


def test_an_adapter_without_weights_is_refused(folder, tmp_path):
    write_adapter(tmp_path, folder, RANKS)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights: adapter_model\.safetensors or"):
        loaded(tmp_path)
