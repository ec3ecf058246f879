"""Fixtures of the kernels' tests.

Every new buffer is filled with NaN, so that a test sees what a kernel does not write. Of a test's
parameters a covering subset of the combinations runs: every pair of values at least once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from helpers.pairwise import covering

if TYPE_CHECKING:
    from collections.abc import Generator

pytest.register_assert_rewrite("helpers.kernel_suite")


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    made = yield
    if not (isinstance(made, list) and all(hasattr(item, "callspec") for item in made)):
        return made
    return [made[index] for index in covering([_parameters(item) for item in made])]


def _parameters(item: pytest.Function) -> dict[str, str]:
    """Return the values of a test's parameters by name; names of one mark are one parameter."""
    values = {name: repr(value) for name, value in item.callspec.params.items()}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        values[str(names)] = str([values.pop(name.strip()) for name in names])
    return values


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoning(make: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return made

    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, poisoning(getattr(owner, name)))
