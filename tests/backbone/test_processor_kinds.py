"""Which kernel runs depends on the kind of processor, never on a timing."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import lc_engine as lc
from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.backbone.dtypes import check_int8
from lc_engine.backbone.layer_kernels import fastest_kernel
from lc_engine.ops import FallbackWarning, contract
from lc_engine.scorer.prepared import Prepared

pytestmark = pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")

says_so = pytest.mark.filterwarnings("ignore:lc_engine. dtype=.int8. on a processor with AMX")
PATH = lc.LearningPath.explicit([1.0, 0.5, 0.1])
WIDE = nn.Conv2d(64, 64, 3, padding=1)


def kernel(layer: nn.Module, dtype: torch.dtype, kept: float = 1.0, *, int8: bool = False) -> str:
    """Return the kernel that a layer gets in a dtype, with a share of its weights."""
    torch.manual_seed(0)
    own = type(layer)(64, 64, *([3] if isinstance(layer, nn.Conv2d) else [])).to(dtype)
    shape = (2, 64, 32, 32) if isinstance(layer, nn.Conv2d) else (2, 400, 64)
    with torch.no_grad():
        own.weight *= torch.rand(own.weight.shape) < kept
    return fastest_kernel(own, torch.zeros(shape, dtype=dtype), int8=int8)


@pytest.mark.parametrize("layer", [WIDE, nn.Linear(64, 64)], ids=["convolution", "linear"])
def test_without_tiles_both_dtypes_have_own_kernels(layer: nn.Module) -> None:
    dense = "winograd" if isinstance(layer, nn.Conv2d) else "packed"
    for dtype in (torch.float32, torch.bfloat16):
        assert kernel(layer, dtype) == dense
        assert kernel(layer, dtype, 0.03) == "sparse"
    assert kernel(layer, torch.bfloat16, int8=True).startswith("int8")


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("layer", [WIDE, nn.Linear(64, 64)], ids=["convolution", "linear"])
def test_with_tiles_bfloat16_is_left_to_the_library(layer: nn.Module) -> None:
    for kept in (1.0, 0.03):
        assert kernel(layer, torch.bfloat16, kept) == "packed"
    dense = "winograd" if isinstance(layer, nn.Conv2d) else "packed"
    assert kernel(layer, torch.float32) == dense
    assert kernel(layer, torch.float32, 0.03) == "sparse"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the engine's operators that a forward calls or builds."""
    found: list[str] = []
    names = ("attention", "WinogradPlan", "SparseLayerPlan", "DepthwisePlan", "Int8LinearPlan")
    for name in (*names, "Int8ConvolutionPlan", "TransformerBlockPlan"):
        real = getattr(ops, name)

        def noted(*args, real=real, name=name, **named):
            found.append(name)
            return real(*args, **named)

        monkeypatch.setattr(ops, name, noted)
    return found


NETWORKS = {
    "resnet18": {"zero_init_last": False},
    "vit_tiny_patch16_224": {"img_size": 96, "depth": 2},
    "efficientnet_lite0": {},
    "mobilenetv3_small_050": {},
}


@says_so
@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_networks_with_tiles_are_close_to_float32(
    called: list[str], name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **NETWORKS[name]).eval()
    x = torch.randn(8, 3, 96, 96)
    with torch.inference_mode():
        exact = Prepared(model, "auto", lc.Masking(), PATH).views(x, torch.float32)
        wanted = exact.features(x, range(3))
        called.clear()
        views = Prepared(model, "auto", lc.Masking(), PATH).views(x, dtype)
        assert views.dtype == torch.bfloat16
        found = views.features(x, range(3))
        assert torch.equal(views.features(x, [2, 0, 1]), found[[2, 0, 1]])
    kinds = {"DepthwisePlan"} if "net" in name and "res" not in name else set()
    if dtype == torch.int8 and name.startswith("vit"):
        kinds = {"Int8LinearPlan", "TransformerBlockPlan"}
    assert set(called) == kinds
    for k in range(2):
        error = (found[k].double() - wanted[k].double()).norm() / wanted[k].double().norm()
        assert error < 0.05


@says_so
@pytest.mark.usefixtures("tiles")
def test_wide_blocks_are_left_to_the_library(called: list[str]) -> None:
    torch.manual_seed(0)
    wide = tuning.INT8_BLOCK_WIDTH["tiles"] + 64
    options = {"img_size": 96, "depth": 1, "embed_dim": int(wide), "num_heads": 4, "num_classes": 5}
    model, x = (
        timm.create_model("vit_tiny_patch16_224", **options).eval(),
        torch.randn(8, 3, 96, 96),
    )
    with torch.inference_mode():
        Prepared(model, "auto", lc.Masking(), PATH).views(x, torch.int8).features(x, [0])
    assert not called


@pytest.mark.usefixtures("tiles")
def test_int8_with_tiles_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        @staticmethod
        def multiplies_int8() -> bool:
            return True

    monkeypatch.setattr(contract, "native", Core)
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match="only transformer blocks of up to 192 features"):
        check_int8(torch.device("cpu"))
