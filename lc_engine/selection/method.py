"""How the rows of a subset were chosen, in words."""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """A strategy, the γ that it used and the guard before it.

    Attributes:
        strategy: its name.
        gamma: also where "auto" chose it; None for a strategy without.
        noise_guard: share of each group that was set aside first.
    """

    strategy: str
    gamma: float | None = None
    noise_guard: float = 0.0

    @property
    def name(self) -> str:
        """The strategy, or "random" where γ leaves one pool, so that no score is read."""
        return "random" if self.gamma in (0, 1) else self.strategy

    def __str__(self) -> str:
        """Return the strategy as it acts, with its γ and its guard."""
        acts = self.strategy
        if self.gamma is not None:
            at = f"{self.strategy} with gamma {self.gamma:g}"
            acts = at if self.name == self.strategy else f"{self.name} ({at})"
        guard = f" behind a noise guard of {self.noise_guard:g}" if self.noise_guard else ""
        return acts + guard
