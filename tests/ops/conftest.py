"""What the operators' tests share: random tensors, backends, instruction sets, threads.

Of a test's parameters only a covering subset of the combinations runs: every pair of values at
least once. The instruction set, the backend and the dtype choose the code that runs and count as
one value, so every case runs on each instruction set in each dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from helpers.native import ISAS, instruction_set, products_on_amx
from helpers.pairwise import covering

Draw = Callable[..., torch.Tensor]
# Parameters that together choose the code that runs.
CODE = ("isa", "backend", "dtype")


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Iterator[None]:
    made = yield
    if not (isinstance(made, list) and all(hasattr(item, "callspec") for item in made)):
        return made
    rows = []
    for item in made:
        # Items share the objects that they are parametrised with.
        row: dict[str, object] = {name: id(one) for name, one in item.callspec.params.items()}
        rows.append(row | {"code": tuple(row.pop(name, None) for name in CODE)})
    return [made[index] for index in covering(rows)]


@pytest.fixture(params=[0, 1], ids=lambda seed: f"seed{seed}")
def draw(request: pytest.FixtureRequest) -> Draw:
    """Standard normal tensors of a shape, new ones at every call."""
    generator = torch.Generator().manual_seed(request.param)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return normal


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has; the test is skipped without the core."""
    with instruction_set(request.param):
        yield request.param


@pytest.fixture(
    params=["reference", *(f"native-{isa}" for isa in ISAS), *["auto-amx"] * bool(ISAS)]
)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The CPU's backends, the native one on each instruction set, and what AMX makes of "auto"."""
    name, _, isa = request.param.partition("-")
    if name == "reference":
        yield name
        return
    if name == "auto":
        with products_on_amx():
            yield name
        return
    with instruction_set(isa):
        yield name


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
