"""Transformer blocks: which are found, and that they run in one call."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from torch import nn

import lc_engine as lc
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fuse_activations, transformer_blocks
from lc_engine.ops import TransformerBlockPlan, contract
from lc_engine.scorer.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.backbone.model_copy import Block

needs_core = pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")
PATH = lc.LearningPath.explicit([1.0, 0.7, 0.02])
SMALL = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 2}


def vit(name: str = "vit_tiny_patch16_224", **more: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **{**SMALL, **more}).eval()


def found_in(model: nn.Module, x: torch.Tensor | None = None) -> list[Block]:
    x = torch.randn(2, 3, 32, 32) if x is None else x
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    rewritten = ModelCopy(model, x, layers=layers, int8=True)
    fuse_activations.apply(rewritten)
    assert transformer_blocks.apply(rewritten) == bool(rewritten.blocks)
    return rewritten.blocks


def test_blocks_of_timm() -> None:
    model = vit()
    blocks = found_in(model)
    assert [block.module for block in blocks] == list(model.blocks)
    first = model.blocks[1]
    assert blocks[1].layers == (first.attn.qkv, first.attn.proj, first.mlp.fc1, first.mlp.fc2)
    assert blocks[1].norms == (first.norm1, first.norm2)
    assert blocks[1].attention == (2, pytest.approx(12**-0.5))


def test_with_layer_scale() -> None:
    model = vit(init_values=0.1)
    blocks = found_in(model)
    assert [block.scales for block in blocks] == [(one.ls1, one.ls2) for one in model.blocks]


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Dinov2"])
def test_blocks_of_hugging_face_with_three_layers_for_qkv(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    if kind == "Dinov2":
        config.layerscale_value = 0.1
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    with torch.no_grad():  # with its small weights, attention is the same with q and k swapped
        for name, weight in model.named_parameters():
            if re.search(r"\.(query|key|q_proj|k_proj)\.weight$", name):
                weight.mul_(30)
    blocks = found_in(model)
    names = {module: name for name, module in model.named_modules()}
    assert len(blocks) == 3
    for block in blocks:
        ordered = [names[layer].rpartition(".")[2] for layer in block.qkv]
        assert ordered in (["query", "key", "value"], ["q_proj", "k_proj", "v_proj"])


class Turned(nn.Module):
    """A block that computes values and keys before queries, with variants."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.one, self.two = nn.LayerNorm(12), nn.LayerNorm(12)
        self.v, self.k, self.q, self.out = (nn.Linear(12, 12) for _ in range(4))
        self.up, self.act, self.down = nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12)

    def forward(self, x, mask=None):
        y = self.one(x)
        v, k, q = (
            layer(y).unflatten(-1, (3, 4)).transpose(1, 2) for layer in (self.v, self.k, self.q)
        )
        if self.kind == "turns":
            q, k = q.roll(1, -1), k.roll(2, -1)
        causal = self.kind == "causal"
        scale = -0.5 if self.kind == "turns scores around" else None
        y = nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
        y = self.out(y.transpose(1, 2).flatten(2))
        x = x + (2 * y if self.kind == "scales" else y)
        return x + self.down(self.act(self.up(self.two(x))))


@pytest.mark.parametrize("kind", ["", "turns", "causal", "scales", "turns scores around"])
def test_a_block_is_recognized_by_what_it_adds(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), Turned(kind), nn.Linear(12, 3)).eval()
    blocks = found_in(model, torch.randn(2, 6, 12))
    if kind:
        assert not blocks
    else:
        assert [block.qkv for block in blocks] == [(model[1].q, model[1].k, model[1].v)]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("vit_tiny_patch16_224", {"qk_norm": True}),
        ("vit_tiny_patch16_224", {"block_fn": timm.models.vision_transformer.ResPostBlock}),
        ("beit_base_patch16_224", {}),
    ],
)
def test_blocks_that_compute_more_stay(name: str, more: dict[str, object]) -> None:
    assert not found_in(vit(name, **more))


def test_a_block_with_a_hook_stays() -> None:
    model = vit()
    model.blocks[1].mlp.fc1.register_forward_hook(lambda *_: None)
    assert [block.module for block in found_in(model)] == [model.blocks[0], model.blocks[2]]


def test_a_block_that_runs_twice_stays() -> None:
    model = vit()
    model.blocks[2] = model.blocks[0]
    assert [block.module for block in found_in(model)] == [model.blocks[1]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The input shapes of blocks that run in one call."""
    shapes: list[tuple[int, ...]] = []

    class Noted(TransformerBlockPlan):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(x.shape))
            return super().__call__(x)

    monkeypatch.setattr("lc_engine.ops.TransformerBlockPlan", Noted)
    return shapes


@pytest.fixture
def features() -> Callable[..., torch.Tensor]:
    def of(model: nn.Module, x: torch.Tensor, dtype: torch.dtype, masking=None) -> torch.Tensor:
        with torch.inference_mode():
            views = Prepared(model, "auto", masking or lc.Masking(), PATH).views(x, dtype)
            return views.features(x, range(3)).double()

    return of


@needs_core
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.slow
def test_blocks_run_in_one_call_in_int8(ran, features, pool: str, scale: float | None) -> None:
    model = vit(embed_dim=48, global_pool=pool, init_values=scale)
    x = torch.randn(24, 3, 32, 32)
    exact = features(model, x, torch.float32)
    assert not ran
    found = features(model, x, torch.int8)
    for k in range(2):
        assert float((found[k] - exact[k]).norm() / exact[k].norm()) < 0.04
    # With 2 % of their weights layers are sparse.
    assert ran == [(24, 17, 48)] * 3 * 2


@needs_core
@pytest.mark.slow
def test_fewer_samples_than_threads_run_layer_by_layer(ran, features) -> None:
    threads = torch.get_num_threads()
    model, x = vit(img_size=128), torch.randn(2, 3, 128, 128)
    try:
        torch.set_num_threads(3)
        few = features(model, x, torch.int8)
        assert not ran
        torch.set_num_threads(2)
        found = features(model, x, torch.int8)
        assert ran
    finally:
        torch.set_num_threads(threads)
    assert float((found - few)[0].norm() / few[0].norm()) < 0.03


@needs_core
def test_blocks_with_dropout_run_layer_by_layer(ran, features) -> None:
    features(vit(), torch.randn(24, 3, 32, 32), torch.int8, lc.Masking("dropout"))
    assert not ran


@needs_core
@pytest.mark.parametrize("masks", [True, False])
def test_a_call_with_a_mask_takes_the_model_s_own_forward(ran, features, masks: bool) -> None:
    class Masking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.begin, self.block, self.head = nn.Linear(12, 12), Turned(), nn.Linear(12, 3)

        def forward(self, x):
            later = masks and len(x) > 2  # not in the forward over the example
            mask = torch.ones(6, 6, dtype=torch.bool).tril() if later else None
            return self.head(self.block(self.begin(x), mask).mean(1))

    torch.manual_seed(0)
    model, x = Masking().eval(), torch.randn(64, 6, 12)
    exact = features(model, x, torch.float32)
    found = features(model, x, torch.int8)
    assert bool(ran) != masks
    assert float((found - exact)[0].norm() / exact[0].norm()) < 0.04
