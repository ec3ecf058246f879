"""What the operators' tests share: fresh random numbers, the CPU's implementations, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

Draw = Callable[..., torch.Tensor]


@pytest.fixture(params=[0, 1], ids=lambda seed: f"seed{seed}")
def draw(request: pytest.FixtureRequest) -> Draw:
    """Standard normal tensors of a shape, new ones at every call."""
    generator = torch.Generator().manual_seed(request.param)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return normal


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
