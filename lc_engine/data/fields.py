"""Inputs that have names: what a processor of Hugging Face returns, and a forward takes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Marks the tokens that are no padding, (N, T); tensors as long as it have a value per token.
ATTENTION_MASK = "attention_mask"


class Fields:
    """N rows of a mapping of tensors, used where the inputs of a model are one tensor.

    Args:
        values: by the name of the model's argument, (N, …).
        pads: what fills a token that is padding, by name; 0 where it does not say.
    """

    def __init__(self, values: Mapping[str, Tensor], pads: Mapping[str, int] | None = None) -> None:
        self.values = dict(values)
        self.pads = dict(pads or {})

    @classmethod
    def stack(cls, rows: Sequence[Mapping[str, Tensor]]) -> Fields:
        """Return rows of the same names and shapes, one at least, as one."""
        return cls({name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    @classmethod
    def pad(cls, rows: Sequence[Mapping[str, Sequence[int]]], pads: Mapping[str, int]) -> Fields:
        """Return rows of tokens, one at least, padded at their ends to the longest."""
        longest = max(len(row[ATTENTION_MASK]) for row in rows)
        values = {}
        for name in rows[0]:
            value = np.full((len(rows), longest), pads.get(name, 0), np.int64)
            for i, row in enumerate(rows):
                value[i, : len(row[name])] = row[name]
            values[name] = torch.from_numpy(value)
        return cls(values, pads)

    @classmethod
    def join(cls, parts: Sequence[Fields]) -> Fields:
        """Return the rows of all parts; tokens are padded with 0 to those of the longest."""
        longest = max(part.tokens for part in parts)
        padded = [part.padded_to(longest) for part in parts]
        names = parts[0].values
        values = {name: torch.cat([part.values[name] for part in padded]) for name in names}
        return cls(values, parts[0].pads)

    def __len__(self) -> int:
        """Return N."""
        return len(next(iter(self.values.values())))

    def __getitem__(self, rows: Any) -> Fields:
        """Return some rows: a slice, a mask (N,) or indices."""
        return self._with({name: value[rows] for name, value in self.values.items()})

    def __iter__(self) -> Any:
        return (self[row : row + 1] for row in range(len(self)))

    def to(self, where: torch.device | torch.dtype) -> Fields:
        """Return the tensors on a device, or those of floating point in a dtype."""
        if isinstance(where, torch.device):
            return self._with({name: value.to(where) for name, value in self.values.items()})
        cast = {n: v.to(where) if v.is_floating_point() else v for n, v in self.values.items()}
        return self._with(cast)

    def clone(self) -> Fields:
        """Return a copy."""
        return self._with({name: value.clone() for name, value in self.values.items()})

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.values.values())).device

    @property
    def is_cuda(self) -> bool:
        """Whether they are on a GPU."""
        return self.device.type == "cuda"

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        return sum(value.nbytes for value in self.values.values())

    @property
    def lengths(self) -> Tensor | None:
        """(N,) int64 columns up to the last one that is no padding; None without a mask."""
        mask = self.values.get(ATTENTION_MASK)
        if mask is None or mask.dim() != 2:
            return None
        columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        return (columns * (mask != 0)).amax(1) if mask.shape[1] else mask.new_zeros(len(mask))

    @property
    def tokens(self) -> int:
        """T, 0 without a mask."""
        mask = self.values.get(ATTENTION_MASK)
        return 0 if mask is None or mask.dim() != 2 else mask.shape[1]

    def cut_to(self, tokens: int) -> Fields:
        """Return the first columns of what has a value per token."""
        return self._with(
            {
                name: value[:, :tokens] if self._is_per_token(value) else value
                for name, value in self.values.items()
            }
        )

    def padded_to(self, tokens: int) -> Fields:
        """Return the same with padding at the end of what has a value per token."""
        more = tokens - self.tokens
        if not more:
            return self
        padded = dict(self.values)
        for name, value in self.values.items():
            if self._is_per_token(value):
                shape = (len(value), more, *value.shape[2:])
                padded[name] = torch.cat([value, value.new_full(shape, self.pads.get(name, 0))], 1)
        return self._with(padded)

    def _is_per_token(self, value: Tensor) -> bool:
        return bool(self.tokens) and value.dim() in (2, 3) and value.shape[1] == self.tokens

    def _with(self, values: Mapping[str, Tensor]) -> Fields:
        return Fields(values, self.pads)


Inputs = Tensor | Fields


def as_tensors(value: Any) -> Any:
    """Return numbers, lists of numbers and arrays, alone or in mappings and lists, as tensors.

    Raises:
        ValueError: values that are no numbers, or lists that are no array.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if hasattr(value, "items"):
        return {str(name): as_tensors(part) for name, part in value.items()}
    if isinstance(value, list | tuple) and any(hasattr(part, "items") for part in value):
        return [as_tensors(part) for part in value]
    try:
        return torch.as_tensor(value)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"numbers are needed, got {value!r:.60}: {error}") from None


def collated(targets: Sequence[Any], device: torch.device) -> Any:
    """Return what rows are compared with as one: tensors of one shape stacked, mappings by name.

    Args:
        targets: of N rows, one at least, as `as_tensors` returns them.
        device: where the tensors go.

    Returns:
        (N, …); a mapping of such; a list of N where shapes or names differ.
    """
    first = targets[0]
    if isinstance(first, Tensor):
        if all(isinstance(one, Tensor) and one.shape == first.shape for one in targets):
            return torch.stack(list(targets)).to(device)
        if all(isinstance(one, Tensor) for one in targets):
            return [one.to(device) for one in targets]
    if isinstance(first, dict) and all(
        isinstance(one, dict) and one.keys() == first.keys() for one in targets
    ):
        parts = {name: collated([one[name] for one in targets], device) for name in first}
        if not any(isinstance(part, list) for part in parts.values()):
            return parts
        return [{name: _at(one[name], device) for name in first} for one in targets]
    return [_at(one, device) for one in targets]


def _at(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _at(part, device) for name, part in value.items()}
    return [_at(part, device) for part in value] if isinstance(value, list) else value
