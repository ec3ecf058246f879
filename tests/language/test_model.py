from __future__ import annotations

import pytest
import torch

from lc_engine.language.model import LanguageModelSpec, fast_dtype, is_language_model


def test_what_is_a_language_model(folder, tmp_path):
    assert is_language_model(str(folder))
    assert is_language_model("model.Q4.gguf")
    (tmp_path / "model.gguf").touch()
    assert is_language_model(str(tmp_path))
    assert not is_language_model("timm/resnet18")
    assert not is_language_model(str(tmp_path / "none"))


def test_the_fast_dtype_is_float32_or_bfloat16():
    assert fast_dtype("cpu") in (torch.float32, torch.bfloat16)


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
