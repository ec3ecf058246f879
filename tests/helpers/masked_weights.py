"""Global magnitude masks as their definition reads, on tensors of any dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def largest_kept(
    weights: Mapping[str, torch.Tensor], capacities: Iterable[float]
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the weights by name with the largest share of all of them kept, and 0 elsewhere."""
    ranked = torch.cat([weight.abs().flatten() for weight in weights.values()]).sort().values
    for capacity in capacities:
        bound = ranked[len(ranked) - round(capacity * len(ranked))]
        yield {name: torch.where(w.abs() >= bound, w, 0) for name, w in weights.items()}
