from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_language_model as tiny
from helpers.native import ISAS, instruction_set
from lc_engine.language.model import LanguageModelSpec, fast_dtype, is_language_model
from lc_engine.ops import processor


def test_what_is_a_language_model(folder, tmp_path):
    assert is_language_model(str(folder))
    assert is_language_model("model.Q4.gguf")
    (tmp_path / "model.gguf").touch()
    assert is_language_model(str(tmp_path))
    assert not is_language_model("timm/resnet18")
    assert not is_language_model(str(tmp_path / "none"))


@pytest.mark.parametrize("isa", ISAS)
def test_the_fast_dtype_is_that_of_the_instruction_set(isa, monkeypatch):
    monkeypatch.setattr(processor, "_library_has_tiles", lambda: False)
    with instruction_set(isa):
        assert fast_dtype("cpu") == (torch.bfloat16 if isa == "avx512_bf16" else torch.float32)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"model {tmp_path} cannot be loaded as a causal"):
        LanguageModelSpec(str(tmp_path)).load()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"holds 2 GGUF files; name one: .*a\.gguf"):
        LanguageModelSpec(str(tmp_path)).load()
    with pytest.raises(ValueError, match=r"a\.gguf cannot be loaded as a causal language model"):
        LanguageModelSpec(str(tmp_path / "a.gguf")).load()


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype must be one of"):
        LanguageModelSpec("folder", "int8")


def changed(folder, tmp_path, change):
    """Return a copy of a model's folder, its tensors changed in place."""
    path = tmp_path / "changed"
    shutil.copytree(folder, path)
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


UP, RENAMED = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.upward.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(UP), f"1 missing: {UP}. Is the file"),
        (lambda t: t.update({RENAMED: t.pop(UP)}), f"1 missing: {UP}; 1 unexpected: {RENAMED}"),
        (lambda t: t.update({RENAMED: t[UP].clone()}), f"model; 1 unexpected: {RENAMED}"),
        (
            lambda t: t.update({UP: t[UP][:40].clone()}),
            rf"1 of another shape: {UP} \(\(40, 32\) in the file, \(48, 32\) in the model\)",
        ),
        (lambda t: [t.pop(n) for n in list(t) if "mlp" in n], r"6 missing: (\S+, ){4}\S+ …"),
        (lambda t: t.pop("model.embed_tokens.weight"), "missing: .*model.embed_tokens.weight"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused_by_name(folder, tmp_path, change, message):
    path = changed(folder, tmp_path, change)
    with pytest.raises(ValueError, match=message):
        LanguageModelSpec(str(path), "float32").load()


@pytest.mark.parametrize("tied", [True, False])
def test_the_tensors_of_a_whole_checkpoint_are_those_of_the_model(tmp_path, tied):
    made = tiny.model(tied=tied)
    made.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) == (not tied)
    loaded, _ = LanguageModelSpec(str(tmp_path), "float32").load()
    wanted = made.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())


def test_an_untied_head_that_is_missing_is_refused(tmp_path):
    tiny.model(tied=False).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing: lm_head.weight"):
        LanguageModelSpec(str(tmp_path), "float32").load()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_the_code_of_a_folder_never_runs(folder, tmp_path, file):
    path = tmp_path / "own"
    shutil.copytree(folder, path)
    ran = tmp_path / "ran"
    (path / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((path / file).read_text())
    if file == "config.json":
        config["model_type"] = "own"
        config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    else:
        config["tokenizer_class"] = "Own"
        config["auto_map"] = {"AutoTokenizer": ["own.Own", None]}
    (path / file).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no code that comes with a model is ever run"):
        LanguageModelSpec(str(path), "float32").load()
    assert not ran.exists()
