"""The training flags and buffers of a module, restored bit for bit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a module in evaluation mode; its buffers and training flags come back bit for bit."""
    state = ModelState(model)
    try:
        model.eval()
        yield
    finally:
        run_to_end(state.put_back)


class ModelState:
    """The training flags and buffers of a module, as they were when this was created."""

    def __init__(self, model: nn.Module) -> None:
        self.flags = [(module, module.training) for module in model.modules()]
        self.buffers = [
            (module, dict(module._buffers)) for module in model.modules() if module._buffers
        ]
        self.values = [(buffer, buffer.clone()) for buffer in model.buffers() if buffer is not None]

    def put_back_buffers(self) -> None:
        """Restore the buffers, and drop those that were registered since."""
        for module, buffers in self.buffers:
            module._buffers.clear()
            module._buffers.update(buffers)
        for buffer, value in self.values:
            buffer.data.copy_(value)

    def put_back(self) -> None:
        """Restore flags and buffers."""
        for module, training in self.flags:
            module.training = training
        self.put_back_buffers()


def run_to_end(restore: Callable[[], None]) -> None:
    """Run a restoration to its end; Ctrl-C in the middle begins it again and is raised after it."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            restore()
            break
        except KeyboardInterrupt as signal:
            interrupt = signal
    if interrupt is not None:
        raise interrupt
