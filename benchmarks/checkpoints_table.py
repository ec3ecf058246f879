"""What is masked of each format of checkpoint, and the capacities that are reached.

    PYTHONPATH=tests python -m benchmarks.checkpoints_table --write docs/checkpoints.md

Every row is a model that is written to a folder in its format, loaded as `lc-engine score` loads
it, and masked; the numbers are those of the account in a run's manifest. The models are tiny and
random, but for those that a package carries.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import lc_engine as lc
from helpers import tiny_gguf
from helpers import tiny_language_model as tiny
from lc_engine.bench.language_data import smollm2_gguf
from lc_engine.masking.account import MaskingWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.masking.account import MaskAccount

BEGIN = "<!-- measured: written by benchmarks/checkpoints_table.py -->"
END = "<!-- end of measured -->"
PATH = lc.LearningPath.explicit([0.9, 0.7, 0.5, 0.3])
VERSIONS = ("torch", "transformers", "timm", "gguf", "safetensors")
BLOCK = 128

NOTHING = "nothing"


class Row(NamedTuple):
    """A format, the model that has it, how it is made, and what to do where all is well."""

    form: str
    model: str
    make: Callable[[Path], Any]
    advice: str


def language(folder: Path, made: Any, dtype: str = "float32") -> Any:
    """Save a language model with the tiny tokenizer, and return its scorer."""
    made.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return scorer(folder, dtype)


def scorer(path: Path, dtype: str = "float32") -> Any:
    from lc_engine.language.model import LanguageModelSpec

    return lc.Scorer.for_causal_lm(LanguageModelSpec(str(path), dtype), path=PATH)


def llama(**options: Any) -> Any:
    return tiny.model(hidden_size=256, intermediate_size=320, num_hidden_layers=1, **options)


def plain(dtype: str) -> Callable[[Path], Any]:
    return lambda folder: language(folder, llama().to(getattr(torch, dtype)), dtype)


def fp8(dtype: torch.dtype, by_block: bool) -> Callable[[Path], Any]:
    """Return how to make a model in the fine-grained FP8 of transformers."""

    def make(folder: Path) -> Any:
        language(folder, llama())
        tensors = {}
        for name, weight in load_file(folder / "model.safetensors").items():
            if "proj" not in name:
                tensors[name] = weight
                continue
            rows, columns = weight.shape
            m, n = (BLOCK, BLOCK) if by_block else (rows, columns)
            grid = torch.empty(-(-rows // m), -(-columns // n))
            for i in range(grid.shape[0]):
                for j in range(grid.shape[1]):
                    block = weight[i * m : (i + 1) * m, j * n : (j + 1) * n]
                    grid[i, j] = block.abs().max() / torch.finfo(dtype).max
            factor = grid.repeat_interleave(m, 0).repeat_interleave(n, 1)[:rows, :columns]
            tensors[name] = (weight / factor).to(dtype)
            tensors[f"{name}_scale_inv"] = grid if by_block else grid.reshape(())
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        size = [BLOCK, BLOCK] if by_block else None
        configure(folder, quant_method="fp8", weight_block_size=size)
        return scorer(folder)

    return make


def configure(folder: Path, **quantization: Any) -> None:
    file = folder / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"quantization_config": quantization})
    )


def gguf(kind: str, made: Callable[[], Any] = tiny_gguf.llama) -> Callable[[Path], Any]:
    return lambda folder: scorer(tiny_gguf.write(folder / "model.gguf", made(), kind))


def mxfp4(folder: Path) -> Any:
    """A gpt-oss whose experts are in MXFP4: 4 bits of E2M1, a power of 2 for 32 of them."""
    made = moe("GptOss", head_dim=16, intermediate_size=64)
    language(folder, made)
    configure(folder, quant_method="mxfp4")
    tensors = load_file(folder / "model.safetensors")
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    for name in [n for n in tensors if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        weight = tensors.pop(name).transpose(1, 2)
        blocks = weight.reshape(*weight.shape[:2], -1, 32)
        power = (blocks.abs().amax(-1, keepdim=True) / 6).log2().ceil()
        units = blocks / power.exp2()
        codes = (units.abs()[..., None] - levels).abs().argmin(-1).byte() | (units < 0).byte() << 3
        tensors[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
        tensors[f"{name}_scales"] = (power + 127).byte().squeeze(-1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return scorer(folder)


def moe(family: str, **options: Any) -> Any:
    settings = {
        "vocab_size": 270,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**(settings | options))
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def lora(folder: Path) -> Any:
    """A LoRA of all projections, beside its base."""
    made = llama()
    language(folder, made)
    tensors = {}
    for name, module in made.named_modules():
        if "proj" in name:
            assert isinstance(module, nn.Linear)
            key = f"base_model.model.{name}.lora_"
            tensors[f"{key}A.weight"] = torch.randn(8, module.in_features) * 0.02
            tensors[f"{key}B.weight"] = torch.randn(module.out_features, 8) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return scorer(folder)


def gpt2(folder: Path) -> Any:
    config = transformers.GPT2Config(
        vocab_size=270, n_embd=64, n_layer=2, n_head=4, n_positions=256, bos_token_id=0
    )
    return language(folder, transformers.GPT2LMHeadModel(config).eval())


def standardized(layer: str) -> Callable[[Path], Any]:
    """Return how to make a small network of a standardized layer of timm."""

    def make(folder: Path) -> Any:
        layers = __import__("timm.layers", fromlist=[layer])
        return vision(
            nn.Sequential(
                getattr(layers, layer)(3, 8, 3),
                nn.ReLU(),
                getattr(layers, layer)(8, 8, 3),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 4),
            ).eval()
        )

    return make


def vision(model: Any) -> Any:
    return lc.Scorer(model, path=PATH)


def network(name: str) -> Callable[[Path], Any]:
    """Return how to make a network of timm with the weights that it begins with."""

    def make(folder: Path) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return vision(__import__("timm").create_model(name, pretrained=False).eval())

    return make


TERNARY = dict.fromkeys(("TQ1_0", "TQ2_0"), " (ternary)")
REFUSED = "replace the layer by a plain one that holds the weight in use"
UNTIED = "nothing; the embedding stays whole where the head is masked"

ROWS = [
    *(Row(d, "Llama", plain(d), NOTHING) for d in ("float32", "bfloat16", "float16")),
    Row("FP8 per tensor", "Llama, e4m3", fp8(torch.float8_e4m3fn, False), NOTHING),
    Row("FP8 per block", "Llama, e4m3, 128 × 128", fp8(torch.float8_e4m3fn, True), NOTHING),
    Row("FP8 per tensor", "Llama, e5m2", fp8(torch.float8_e5m2, False), NOTHING),
    Row("FP8 per block", "Llama, e5m2, 128 × 128", fp8(torch.float8_e5m2, True), NOTHING),
    *(
        Row(f"GGUF {kind}{TERNARY.get(kind, '')}", "Llama", gguf(kind), NOTHING)
        for kind in ("F32", "F16", *tiny_gguf.QUANTIZED)
    ),
    Row("GGUF Q4_0, kept packed by transformers", "LFM2", gguf("Q4_0", tiny_gguf.lfm2), NOTHING),
    Row("MXFP4", "gpt-oss", mxfp4, NOTHING),
    Row("LoRA", "Llama", lora, "nothing; other adapters are merged by peft first"),
    Row("MoE", "Mixtral", lambda f: language(f, moe("Mixtral")), NOTHING),
    Row(
        "MoE",
        "Qwen3-MoE",
        lambda f: language(f, moe("Qwen3Moe", num_experts=4, moe_intermediate_size=48)),
        NOTHING,
    ),
    Row("MoE", "gpt-oss", lambda f: language(f, moe("GptOss", head_dim=16)), NOTHING),
    Row("tied", "Llama", lambda f: language(f, llama(tied=True)), UNTIED),
    Row("not tied", "Llama", lambda f: language(f, llama(tied=False)), NOTHING),
    Row("`Conv1D`", "GPT-2", gpt2, NOTHING),
    *(
        Row("standardized", f"`{layer}`", standardized(layer), REFUSED)
        for layer in ("StdConv2d", "ScaledStdConv2d")
    ),
    Row("float32", "ResNet-18, not trained", network("resnet18"), NOTHING),
    Row("float32", "ViT-Tiny, not trained", network("vit_tiny_patch16_224"), NOTHING),
    Row("float32", "EfficientNet-Lite0, ImageNet", lambda _: vision("efficientnet-lite0"), NOTHING),
    Row("GGUF Q4_1", "SmolLM2-135M-Instruct", lambda f: scorer(smollm2_gguf(f)), NOTHING),
]


def measured(row: Row) -> str:
    """Return a row of the table in Markdown."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MaskingWarning)
        try:
            account: MaskAccount = row.make(Path(folder)).mask_account
        except ValueError as error:
            reason = str(error).split(":")[0]
            print(f"{row.form}, {row.model}: refused: {error}", file=sys.stderr)
            assert "standardized" in reason, row
            return f"| {row.form} | {row.model} | refused | | | | | {row.advice} |"
    assert account.reached is not None
    print(f"{row.form}, {row.model}: {account.line()}", file=sys.stderr)
    cells = [
        row.form,
        row.model,
        f"{account.maskable_share:.1%}",
        *(f"{reached:.3f}" for reached in account.reached),
        _advice(account) or row.advice,
    ]
    return f"| {' | '.join(cells)} |"


def _advice(account: MaskAccount) -> str | None:
    """Return what to do where a capacity is missed, None where none is."""
    if account.missed is None or account.reached is None:
        return None
    most = max(account.reached)
    if len(account.groups) and len(account.groups[0]) == len(account.capacities):
        return (
            f"capacities below {most:.3f}, the share that is not zero: all others are one sub-model"
        )
    return f"capacities up to {most:.3f}, the share that is not zero"


def table() -> str:
    """Return the measured part of the page."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    asked = " | ".join(f"reached for {capacity:g}" for capacity in PATH.capacities)
    return "\n".join(
        [
            BEGIN,
            f"With {versions}.",
            "",
            f"| format | model | of the matrices, can be masked | {asked} | what to do |",
            "|---|---|---|---|---|---|---|---|",
            *(measured(row) for row in ROWS),
            END,
        ]
    )


def main() -> None:
    """Print the table, or write it to a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page whose measured part is replaced")
    page = parser.parse_args().write
    found = table()
    if page is None:
        print(found)
        return
    text = page.read_text(encoding="utf-8")
    renewed, count = re.subn(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: found, text, flags=re.S
    )
    if count != 1:
        sys.exit(f"{page} has no part between {BEGIN} and {END}")
    page.write_text(renewed, encoding="utf-8")


if __name__ == "__main__":
    main()
