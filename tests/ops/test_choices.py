"""Which products are torch's on a processor with AMX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
import torch

from helpers.native import ISAS, products_on_amx
from lc_engine import ops
from lc_engine.ops import choices, processor

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.skipif(not ISAS, reason="the C++ core was not built")


class CoreError(Exception):
    """The core's own product ran."""


def refuse(*_: object) -> None:
    raise CoreError


def calls(draw: Draw, dtype: torch.dtype) -> dict[str, Callable[[str], Tensor]]:
    x, weight, targets = draw(2, 9, 8).to(dtype), draw(70, 8).to(dtype), torch.arange(9)
    q = draw(1, 2, 5, 8).to(dtype)
    return {
        "token_nll": lambda backend: ops.token_nll(x, weight, targets, backend=backend),
        "masked_linear": lambda backend: ops.masked_linear(
            x, weight, None, [0.1, 0.5], backend=backend
        ),
        "attention": lambda backend: ops.attention(q, q, q, backend=backend),
    }


@pytest.mark.parametrize("name", ["token_nll", "masked_linear", "attention"])
def test_bfloat16_is_multiplied_by_torch_on_amx_alone(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = importlib.import_module(f"lc_engine.ops.{name}")
    monkeypatch.setattr(module, "_native", refuse)
    monkeypatch.setattr(
        choices, "cpu_features", lambda: processor.CpuFeatures(False, False, True, True)
    )
    narrow = calls(draw, torch.bfloat16)[name]
    with pytest.raises(CoreError):
        narrow("auto")
    with products_on_amx():
        narrow("auto")
        with pytest.raises(CoreError):
            narrow("native")
        with pytest.raises(CoreError):
            calls(draw, torch.float32)[name]("auto")


@pytest.mark.parametrize(
    ("classes", "dims", "sub_models", "kept", "dense"),
    [
        (1000, 768, 8, 1.0, True),
        (1000, 768, 50, 1.0, False),
        (1000, 768, 8, 0.3, False),  # shells skip what no sub-model keeps
        (1000, 768, 40, 40 * 0.6, True),  # masks that are not nested share no work
        (10, 512, 8, 1.0, False),
        (21841, 768, 8, 1.0, False),  # too much memory
    ],
)
def test_a_head_is_dense_where_that_costs_less(
    classes: int, dims: int, sub_models: int, kept: float, dense: bool
) -> None:
    assert choices.head_is_dense(classes, dims, sub_models, kept) == dense
