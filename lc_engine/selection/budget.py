"""The number of rows to keep, in all and of each group, exact to the row."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bound = int | Mapping[Any, int] | None

_UNIT = 1024  # of weights n^α as integers


def resolve_keep(keep: float, total: int) -> int:
    """Return the number of rows to keep.

    Args:
        keep: a float in (0, 1] is a fraction: round(keep · total); an int ≥ 1 is a count. So 1
            keeps one row and 1.0 all of them.
        total: N, the eligible rows.

    Raises:
        ValueError: a bool, a value out of range, a count above N, a fraction that rounds to zero.
    """
    check_keep(keep)
    if isinstance(keep, (int, np.integer)):
        if keep > total:
            raise ValueError(
                f"keep = {keep} is a count and must lie in [1, {total}], the rows with status "
                '"ok"; for a fraction give a float (1.0 keeps everything)'
            )
        return int(keep)
    budget = round(float(keep) * total)
    if budget == 0:
        raise ValueError(f"keep = {keep} of {total} rows rounds to none: give a larger fraction")
    return budget


def check_keep(keep: Any) -> None:
    """Refuse a budget that suits no number of rows.

    Raises:
        ValueError: a bool, or a value out of range.
    """
    if isinstance(keep, (bool, np.bool_)):
        raise ValueError("keep must be a fraction or a count, not a bool")
    is_count = isinstance(keep, (int, np.integer)) and keep >= 1
    if not is_count and not (isinstance(keep, (float, np.floating)) and 0.0 < keep <= 1.0):
        raise ValueError(f"keep must be a float in (0, 1] or an int of at least 1, got {keep!r}")


def check_shares(shares: Mapping[Any, float]) -> None:
    """Refuse shares of a budget that suit no groups.

    Raises:
        ValueError: a share out of range, or a sum above 1.
    """
    for group, share in shares.items():
        if not share >= 0:  # NaN too
            raise ValueError(f"share of {group} must be at least 0, got {share}")
    if sum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"share: the shares sum to {sum(shares.values()):g}, which is above 1")


def allocate(
    sizes: NDArray[np.int64],
    names: NDArray[Any],
    keep: float,
    *,
    floor: Bound,
    cap: Bound,
    balance: float = 1.0,
) -> NDArray[np.int64]:
    """Return the number of rows to keep of each group: (G,).

    Args:
        sizes: (G,) eligible rows of each group.
        names: (G,) the groups' names, which `floor` and `cap` may refer to.
        keep: a float in (0, 1] is a fraction, an int a count.
        floor: least number kept per group.
        cap: greatest number kept per group.
        balance: α; groups share the budget in proportion to n^α of their n rows: 1 as the data are,
            0 equally.

    Raises:
        ValueError: an invalid `keep`, `floor`, `cap` or `balance`, or bounds that the budget cannot
            meet.
    """
    if not 0.0 <= balance <= 1.0:
        raise ValueError(f"balance must lie in [0, 1], got {balance}")
    weights = None
    if balance < 1.0:
        weights = np.rint(_UNIT * sizes.astype(np.float64) ** balance).astype(np.int64)
        weights[sizes == 0] = 0
    return apportion(
        sizes,
        resolve_keep(keep, int(sizes.sum())),
        floor=bound_per_group("floor", floor, names),
        cap=bound_per_group("cap", cap, names),
        weights=weights,
    )


def apportion(
    sizes: NDArray[np.int64],
    budget: int,
    *,
    floor: NDArray[np.int64] | None = None,
    cap: NDArray[np.int64] | None = None,
    weights: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return a budget's shares for groups in proportion to their weights, by largest remainders.

    Args:
        sizes: (G,) rows of each group.
        budget: rows to keep in all, at most Σ sizes.
        floor: (G,) least number of rows per group; by default 1 for every non-empty group if the
            budget is at least their number, else 0.
        cap: (G,) greatest number per group; by default the group's size.
        weights: (G,) what the shares are in proportion to, 0 where a group is empty; by default
            the sizes.

    Returns:
        (G,) int64 with sum exactly `budget`.

    Raises:
        ValueError: floors and caps that the budget cannot meet.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    weights = sizes if weights is None else weights
    high = sizes if cap is None else np.minimum(sizes, cap)
    if floor is None:
        low = np.minimum(high, int(budget >= np.count_nonzero(sizes)))
    else:
        low = np.minimum(sizes, floor)
    if (low > high).any():
        group = int(np.flatnonzero(low > high)[0])
        raise ValueError(f"group {group} has a floor of {low[group]} above its cap {high[group]}")
    if not low.sum() <= budget <= high.sum():
        raise ValueError(
            f"keep asks for {budget} rows, but floor and cap allow {low.sum()} to {high.sum()}"
        )
    # Proportional shares λ·weight, clipped to [low, high], sum to the budget at one λ in [0, 1].
    below, above = 0.0, float(max(1, high.max(initial=1)))
    for _ in range(128):
        scale = (below + above) / 2
        if np.clip(scale * weights, low, high).sum() < budget:
            below = scale
        else:
            above = scale
    share = np.clip(above * weights, low, high)
    free = (share > low) & (share < high)
    counts = np.where(free, 0, np.rint(share)).astype(np.int64)
    left = budget - int(counts.sum())
    if free.any():
        # In integers: the quotas of the free groups, rounded down, and their remainders.
        quota = left * weights[free]
        counts[free] = np.clip(quota // weights[free].sum(), low[free], high[free])
    remainder = np.zeros(len(sizes))
    if free.any():
        remainder[free] = (quota % weights[free].sum()) / weights[free].sum()
    return _distribute_remainder(counts, budget, low, high, remainder)


def _distribute_remainder(
    counts: NDArray[np.int64],
    budget: int,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    remainder: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return counts that sum to the budget, by largest remainders (ties: the earlier group)."""
    counts = counts.copy()
    while (left := budget - int(counts.sum())) != 0:
        step = 1 if left > 0 else -1
        room = np.flatnonzero(counts < high if left > 0 else counts > low)
        chosen = room[np.argsort(-step * remainder[room], kind="stable")[: abs(left)]]
        counts[chosen] += step
    return counts


def bound_per_group(name: str, bound: Bound, names: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return a floor or cap for every group: (G,), or None if there is none.

    Args:
        name: "floor" or "cap", for errors.
        bound: one number for all groups, or {group: number} for some of them.
        names: (G,) the groups' names.

    Raises:
        ValueError: a negative number, or an unknown group.
    """
    if bound is None:
        return None
    default = 0 if name == "floor" else np.iinfo(np.int64).max
    given = dict(bound) if isinstance(bound, Mapping) else dict.fromkeys(names.tolist(), bound)
    known = {value: i for i, value in enumerate(names.tolist())}
    result = np.full(len(names), default, dtype=np.int64)
    for group, value in given.items():
        if group not in known:
            raise ValueError(
                f"{name} names group {group!r}, which no row has; groups: {sorted(known)[:20]}"
            )
        try:
            number = operator.index(value)
        except TypeError:
            number = -1
        if number < 0 or isinstance(value, bool):
            raise ValueError(f"{name} of group {group!r} must be an int of at least 0")
        result[known[group]] = number
    return result


def with_shares(
    shares: Mapping[Any, float],
    budget: int,
    sizes: NDArray[np.int64],
    names: NDArray[Any],
    floor: Bound,
    cap: Bound,
) -> tuple[dict[Any, int], dict[Any, int] | None]:
    """Return floors and caps by which some groups get a share of the budget exactly.

    Args:
        shares: {group: share in [0, 1]}; groups go by the text of their name.
        budget: rows to keep in all.
        sizes: (G,) rows of each group.
        names: (G,) the groups' names.
        floor: least number per group, which holds for the other groups.
        cap: greatest number per group, likewise.

    Raises:
        ValueError: an unknown group, a share out of range, a sum above 1, or more rows than a group
            has.
    """
    check_shares(shares)
    known = {str(name): index for index, name in enumerate(names.tolist())}
    least, most = bound_per_group("floor", floor, names), bound_per_group("cap", cap, names)
    low = np.minimum(sizes, 1) if least is None else least
    high = sizes.copy() if most is None else most
    for group, share in shares.items():
        if str(group) not in known:
            raise ValueError(
                f"share names group {group!r}, which no row has; groups: {sorted(known)[:20]}"
            )
        index = known[str(group)]
        rows = round(share * budget)
        if rows > sizes[index]:
            raise ValueError(
                f"share: {share:g} of {budget} rows are {rows} of {group}, which has "
                f"{sizes[index]}: give a smaller share or budget"
            )
        low[index] = high[index] = rows
    if sum(shares.values()) > 1 - 1e-9 and len(shares) < len(known):
        others = [index for name, index in known.items() if name not in map(str, shares)]
        low[others] = 0
    listed = names.tolist()
    return (
        dict(zip(listed, low.tolist(), strict=True)),
        dict(zip(listed, high.tolist(), strict=True)),
    )
