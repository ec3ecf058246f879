"""Early exits: sub-models that end after each block of a network.

Sub-model of depth i of L: the network up to block i, its output pooled (arXiv 2402.05356 v1,
section 3). One forward gives the features of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lc_engine.backbone.model_copy import copied
from lc_engine.backbone.split_batch import split_inputs
from lc_engine.models.classifier import Tap, mask_of
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.backbone.interface import RowLoss
    from lc_engine.data.fields import Inputs


@dataclass(frozen=True)
class Exits:
    """The blocks after which a network is cut off; takes the place of a `Masking`.

    Attributes:
        modules: names of modules in the order in which they run, such as ("layer1", "layer2");
            None takes every block: the members of the longest chains of modules (`nn.Sequential`,
            `nn.ModuleList`) that are not inside another block.

    Raises:
        ValueError: no name, or a name twice.
    """

    modules: tuple[str, ...] | None = None

    # Whether the sub-models have points of their own, one per exit; see `path`.
    brings_path: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.modules is not None and (
            not self.modules or len(set(self.modules)) < len(self.modules)
        ):
            raise ValueError(f"modules must name each exit once, got {self.modules}")

    def check_head(self, head: str) -> None:
        """Refuse the model's own classifier, which fits the last exit only.

        Args:
            head: "prototype", "linear" or "knn".

        Raises:
            ValueError: saying what to use.
        """
        if head == "linear":
            raise ValueError('head: exits have no classifier; use "prototype" or "knn"')

    def find(self, model: nn.Module, head: str | None) -> tuple[str, ...]:
        """Return the names of a model's exits.

        Raises:
            ValueError: a module that the model does not have, or no block found.
        """
        if self.modules is not None:
            known = dict(model.named_modules())
            for name in self.modules:
                if name not in known:
                    raise ValueError(
                        f'modules: {type(model).__name__} has no module "{name}"; it has '
                        f"{', '.join(list(known)[1:6])} …"
                    )
            return self.modules
        found = _blocks(model, "", head)
        if not found:
            raise ValueError(
                f"{type(model).__name__} has no chain of blocks to cut: name the modules"
            )
        return tuple(found)

    @staticmethod
    def path(exits: int) -> LearningPath:
        """Return the path of L exits: capacity (i + 1)/L of the depth, the deepest first."""
        depths = [(i + 1) / exits for i in reversed(range(exits))]
        return LearningPath("exits", tuple(depths), (1.0 / exits,) * exits)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"kind": "exits", "modules": None if self.modules is None else list(self.modules)}


def _blocks(module: nn.Module, prefix: str, head: str | None) -> list[str]:
    """Return the blocks of a network: of each chain its members, or the chains inside them."""
    names: list[str] = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        if full == head:
            continue
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child) > 0:
            if any(any(part.children()) for part in child):
                inner = _blocks(child, f"{full}.", head)
                names += inner or [f"{full}.{i}" for i in range(len(child))]
        elif isinstance(module, (nn.Sequential, nn.ModuleList)) and any(child.children()):
            names.append(full)
        else:
            names += _blocks(child, f"{full}.", head)
    return names


class ExitCopy:
    """A copy of a model whose blocks' outputs are captured and pooled in one forward.

    Args:
        model: any module; it is not changed.
        exits: names of the modules, in the order in which they run.
        classifier: name of the classifier module, None if there is none.
        dtype: of the copy.

    Attributes:
        widths: D_i of each exit, the deepest first; known after the first forward.
    """

    def __init__(
        self, model: nn.Module, exits: Sequence[str], classifier: str | None, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.tap = Tap(copied(model).to(dtype), classifier)
        self.widths: tuple[int, ...] = ()
        self._exits = tuple(exits)
        self._captured: dict[str, Tensor] = {}
        self._rows = 0
        self._mask: Tensor | None = None
        for name in exits:
            self.tap.model.get_submodule(name).register_forward_hook(self._capture(name))

    def _capture(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if name in self._captured:
                raise ValueError(f'module "{name}" runs twice in one forward: it is no exit')
            value = output[0] if isinstance(output, tuple) else output
            # At once, and as a copy: a later module may write to what this one returned.
            pooled = self.tap.pool(value, self._rows, f'output of "{name}"', self._mask)
            self._captured[name] = pooled.clone()

        return hook

    def whole(self, inputs: Inputs) -> Tensor:
        """Return the features of all exits side by side, the deepest first: (N, Σ D_i).

        Raises:
            ValueError: an exit did not run, or its output is not one that can be pooled.
        """
        parts = split_inputs(inputs, self.dtype)
        found = torch.cat([self._pooled(part.inputs) for part in parts])
        return found[torch.cat([part.rows for part in parts]).argsort().to(found.device)]

    def features(self, inputs: Inputs, points: Sequence[int]) -> Sequence[Tensor]:
        """Return the features (N, D_i) of exits, all from one forward."""
        every = torch.split(self.whole(inputs), list(self.widths), dim=1)
        return [every[k] for k in points]

    def logits(self, inputs: Inputs, points: Sequence[int]) -> Sequence[Tensor]:
        """Refuse: the classifier fits the last exit only."""
        raise ValueError('exits have no classifier of their own: use head="prototype" or "knn"')

    def losses(
        self, inputs: Inputs, targets: Sequence[Any], points: Sequence[int], loss: RowLoss
    ) -> Tensor:
        """Refuse: an exit returns features.

        Raises:
            ValueError: always.
        """
        raise ValueError("exits return features, not what a loss takes")

    def _pooled(self, inputs: Inputs) -> Tensor:
        self._captured, self._rows, self._mask = {}, len(inputs), mask_of(inputs)
        self.tap.run(inputs)
        missing = [name for name in self._exits if name not in self._captured]
        if missing:
            raise ValueError(f'module "{missing[0]}" did not run: it is no exit')
        features = [self._captured[name] for name in reversed(self._exits)]
        self._captured = {}
        self.widths = tuple(value.shape[1] for value in features)
        return torch.cat(features, dim=1)
