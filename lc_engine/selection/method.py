"""How the rows of a subset were chosen, in words."""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """A strategy and the γ that it used.

    Attributes:
        strategy: its name.
        gamma: also where "auto" chose it; None for a strategy without.
    """

    strategy: str
    gamma: float | None = None

    @property
    def name(self) -> str:
        """The strategy, or "random" where γ leaves one pool, so that no score is read."""
        return "random" if self.gamma in (0, 1) else self.strategy

    def __str__(self) -> str:
        """Return the strategy as it acts, with its γ."""
        if self.gamma is None:
            return self.strategy
        at = f"{self.strategy} with gamma {self.gamma:g}"
        return at if self.name == self.strategy else f"{self.name} ({at})"
