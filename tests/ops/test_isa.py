"""How the C++ core's instruction set is chosen. Every other test runs on each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from helpers.native import ISAS, instruction_set
from lc_engine import ops
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

NEEDS = {
    "baseline": set(),
    "avx2": {"avx2", "fma", "bmi2"},
    "avx512": {"avx512f", "avx512bw"},
    "avx512_bf16": {"avx512f", "avx512bw", "avx512_bf16"},
}
needs_core = pytest.mark.skipif(not ISAS, reason="the C++ core was not built")

# The core needs no torch, so neither does a process that only prints the choice.
SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lc_engine._native", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
print(core.cpu_isa())
"""


def chosen(isa: str) -> subprocess.CompletedProcess[str]:
    """Return what a new process prints under LC_ENGINE_ISA."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, contract.native().__file__],
        env={**os.environ, "LC_ENGINE_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_core
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_all_that_the_processor_has_are_there() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert [name for name, needed in NEEDS.items() if needed <= flags] == ISAS


@needs_core
@pytest.mark.parametrize("name", [*ISAS, ""])
def test_the_environment_chooses_and_the_best_is_the_default(name: str) -> None:
    done = chosen(name)
    assert (done.returncode, done.stdout.strip()) == (0, name or ISAS[-1]), done.stderr


@needs_core
@pytest.mark.parametrize("name", ["sse9", *(name for name in NEEDS if name not in ISAS)])
def test_a_name_that_is_not_there_is_a_clear_error(name: str) -> None:
    names = f"the instruction sets of this build on this processor are {', '.join(ISAS)}"
    done = chosen(name)
    assert done.returncode != 0
    assert f"RuntimeError: LC_ENGINE_ISA: {names}; got {name}" in done.stderr
    before = contract.native().cpu_isa()
    with pytest.raises(ValueError, match=f"{names}; got {name}"):
        contract.native().set_isa(name)
    assert contract.native().cpu_isa() == before


@needs_core
def test_a_switch_returns_the_set_before() -> None:
    first, last = ISAS[0], ISAS[-1]
    with instruction_set(first):
        assert contract.native().set_isa(last) == first
        assert contract.native().cpu_isa() == last


def transformer_block(draw: Draw) -> Callable[[Tensor], Tensor]:
    def layer(outputs: int, inputs: int) -> ops.Int8LinearPlan:
        return ops.Int8LinearPlan([draw(outputs, inputs)], [None], [None])

    return ops.TransformerBlockPlan(layer(66, 20), layer(20, 22), layer(20, 20), heads=2)


# A plan and the shape of its input: packed data of every vector width.
PLANS: dict[str, tuple[Callable[[Draw], Callable[[Tensor], object]], tuple[int, ...]]] = {
    "linear": (
        lambda draw: ops.LinearPlan(draw(9, 21), None, torch.tensor([0.0, 0.4])),
        (50, 21),
    ),
    "mlp": (
        lambda draw: ops.MLPPlan(
            [draw(19, 21), draw(9, 19)], [None] * 2, torch.tensor([0.0, 0.4, 1.5])
        ),
        (50, 21),
    ),
    "prototype": (lambda draw: ops.PrototypePlan(draw(9, 21)), (2, 50, 21)),
    "sparse": (lambda draw: ops.SparseLayerPlan(draw(9, 21)), (50, 21)),
    "depthwise": (lambda draw: ops.DepthwisePlan(draw(21, 1, 3, 3)), (2, 21, 7, 8)),
    "winograd": (lambda draw: ops.WinogradPlan(draw(9, 21, 3, 3)), (2, 21, 7, 8)),
    "int8 winograd": (
        lambda draw: ops.WinogradPlan(draw(9, 21, 3, 3), int8=True),
        (2, 21, 7, 8),
    ),
    "int8 convolution": (lambda draw: ops.Int8ConvolutionPlan(draw(9, 21, 3, 3)), (2, 21, 7, 8)),
    "int8 linear": (
        lambda draw: ops.Int8LinearPlan([draw(9, 21)], [None], [None]),
        (50, 21),
    ),
    "transformer block": (transformer_block, (3, 30, 20)),
}


def results(plan: Callable[[Tensor], object], x: Tensor) -> list[Tensor]:
    found = plan(x)
    return [found] if isinstance(found, torch.Tensor) else [one for one in found if one is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_gives_the_same_bits_after_a_switch(
    draw: Draw, isa: str, dtype: torch.dtype, name: str
) -> None:
    make, shape = PLANS[name]
    x = draw(*shape).to(dtype)
    plan = make(lambda *sizes: draw(*sizes).to(dtype))
    wanted = results(plan, x)
    for other in ISAS:
        with instruction_set(other):
            for ours, before in zip(results(plan, x), wanted, strict=True):
                assert torch.equal(ours, before)
    assert contract.native().cpu_isa() == isa
