from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import nn

from helpers import tiny_gguf
from helpers import tiny_language_model as tiny
from lc_engine.language.model import LanguageModelSpec
from lc_engine.masking.masking import Masking

# The step between neighbouring levels where a block reaches from −1 to 1, and half of it is the
# largest error; for floating-point types relative to the weight.
STEPS = {"Q4_0": 1 / 7, "Q4_1": 2 / 15, "Q5_0": 1 / 15, "Q5_1": 2 / 31, "Q8_0": 1 / 127}


def loaded(path, dtype="float32"):
    return LanguageModelSpec(str(path), dtype).load()


@pytest.mark.parametrize("kind", ["F32", "F16", *tiny_gguf.QUANTIZED])
def test_every_weight_has_the_magnitude_of_its_block(tmp_path, kind):
    made = tiny_gguf.llama()
    model, _ = loaded(tiny_gguf.write(tmp_path / "a.gguf", made, kind))
    form = gguf.GGMLQuantizationType[kind]
    for name, value in made.state_dict().items():
        found = model.state_dict()[name]
        assert found.dtype == torch.float32
        if value.dim() == 1 or kind == "F32":
            assert torch.equal(found, value)
            continue
        # Rows are quantized apart, so that their order in the file does not matter.
        array = value.numpy()
        want = gguf.dequantize(gguf.quantize(array, form), form)
        np.testing.assert_array_equal(found.numpy(), want)
        if kind in STEPS:
            blocks = np.abs(array).reshape(-1, 32).max(1, keepdims=True)
            error = np.abs(found.numpy() - array).reshape(-1, 32)
            assert (error <= blocks * STEPS[kind] * 1.01).all()


def test_a_forward_is_that_of_the_model_that_was_written(tmp_path):
    made = tiny.model()
    model, tokenizer = loaded(tiny_gguf.write(tmp_path / "a.gguf", made, "F32"))
    text = "hello, the inner thing"
    ids = tiny.tokenizer()(text, return_tensors="pt")["input_ids"]
    assert tokenizer(text)["input_ids"] == ids[0].tolist()
    torch.testing.assert_close(model(ids).logits, made(ids).logits)


def test_the_factors_of_rotary_frequencies_are_used(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    made = tiny.model(rope_parameters=rope | scaling)
    plain = 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    factors = (plain / made.model.rotary_emb.inv_freq).numpy()
    assert factors.max() > 2
    model, _ = loaded(tiny_gguf.write(tmp_path / "a.gguf", made, "F32", rope_freqs=factors))
    ids = torch.arange(100)[None]
    torch.testing.assert_close(model(ids).logits, made(ids).logits, atol=1e-4, rtol=1e-4)
    odd = tiny_gguf.write(tmp_path / "b.gguf", made, "F32", rope_factors_long=factors)
    with pytest.raises(ValueError, match=r"by rope_factors_long\.weight, which is not understood"):
        loaded(odd)


class Kernel:
    """What `transformers` asks of a kernel that multiplies packed weights."""

    def supports(self, ggml_type):
        return True


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_an_architecture_that_is_kept_packed_is_loaded_in_float(tmp_path, monkeypatch, kind, dtype):
    quantizer = pytest.importorskip("transformers.quantizers.quantizer_gguf")
    monkeypatch.setattr(quantizer, "get_gguf_kernel", Kernel, raising=True)
    made = tiny_gguf.lfm2()
    model, _ = loaded(tiny_gguf.write(tmp_path / "a.gguf", made, kind), dtype)
    masked = Masking().find(model, "lm_head")
    matrices = {
        name: value
        for name, value in made.state_dict().items()
        if value.dim() > 1 and "embed" not in name and "lm_head" not in name
    }
    assert masked.keys() == matrices.keys()
    form = gguf.GGMLQuantizationType[kind]
    for name, value in matrices.items():
        want = value
        if "conv.conv" not in name:
            packed = gguf.quantize(value.numpy(), form)
            want = torch.from_numpy(gguf.dequantize(packed, form))
        assert torch.equal(masked[name], want.to(getattr(torch, dtype)))
    assert not any("Gguf" in type(module).__name__ for module in model.modules())


def test_a_file_is_parsed_once(tmp_path, monkeypatch):
    parsed = []
    whole = gguf.GGUFReader

    class Counted(whole):
        def __init__(self, path, *arguments):
            parsed.append(path)
            super().__init__(path, *arguments)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    path = tiny_gguf.write(tmp_path / "a.gguf", tiny.model(intermediate_size=64), "Q8_0")
    loaded(path)
    assert len(parsed) == 1
    assert gguf.GGUFReader is Counted
    # The next load reads what the file holds by then.
    loaded(tiny_gguf.write(tmp_path / "a.gguf", tiny.model(), "F32"))
    assert len(parsed) == 2


@pytest.mark.parametrize("kept", [0, 3, 100, 5000, -1])
def test_a_truncated_file_is_refused_by_its_name(tmp_path, kept):
    path = tiny_gguf.write(tmp_path / "cut.gguf", tiny.model(intermediate_size=64), "Q8_0")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut\.gguf cannot be loaded as a causal") as error:
        loaded(path)
    assert "\n" not in str(error.value)


def test_a_packed_module_is_refused_by_name(tmp_path, monkeypatch):
    from lc_engine.language import model as module

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("qweight", torch.zeros(3, 4, dtype=torch.int32))

    def packed(path, dtype):
        made = nn.ModuleDict({"proj": Packed()})
        keys = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
        return made, None, dict.fromkeys(keys, ())

    monkeypatch.setattr(module, "load_gguf", packed)
    path = tiny_gguf.write(tmp_path / "a.gguf", tiny.model(), "F32")
    with pytest.raises(ValueError, match=r"proj\.qweight is still packed \(torch\.int32 in a Pack"):
        loaded(path)
