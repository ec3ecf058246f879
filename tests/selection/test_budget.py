from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lc_engine.selection.budget import apportion, bound_per_group, resolve_keep

SIZES = st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any)


@pytest.mark.parametrize(
    ("keep", "rows"), [(1, 1), (1.0, 50), (0.5, 25), (0.05, 2), (0.07, 4), (np.float32(0.5), 25),
                       (np.int64(7), 7), (50, 50)]
)  # fmt: skip
def test_a_float_is_a_fraction_and_an_int_a_count(keep: float, rows: int) -> None:
    assert resolve_keep(keep, 50) == rows


@pytest.mark.parametrize("keep", [True, 0, -1, 51, 0.0, 1.5, -0.1, float("nan"), "0.1", None])
def test_a_keep_that_means_nothing_is_refused(keep: object) -> None:
    with pytest.raises(ValueError, match="keep"):
        resolve_keep(keep, 50)  # type: ignore[arg-type]


def test_a_fraction_that_rounds_to_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds to none"):
        resolve_keep(0.001, 50)


@settings(deadline=None)
@given(SIZES, st.data())
def test_apportion_is_exact_and_proportional(sizes: list[int], data: st.DataObject) -> None:
    array = np.array(sizes)
    budget = data.draw(st.integers(0, sum(sizes)))
    counts = apportion(array, budget)
    assert counts.sum() == budget
    assert (counts <= array).all()
    filled = np.count_nonzero(array)
    if budget >= filled:
        assert (counts[array > 0] >= 1).all()
    quota = budget * array / array.sum()
    if budget == 0 or (quota[array > 0] >= 1).all() or budget < filled:
        assert (np.abs(counts - quota) < 1).all(), "largest remainders stay within one of the quota"
    # A larger group never gets fewer rows than a smaller one.
    order = np.argsort(array, kind="stable")
    strictly = np.diff(array[order]) > 0
    assert (np.diff(counts[order])[strictly] >= 0).all()


@settings(deadline=None)
@given(SIZES, st.data())
def test_floors_and_caps_hold(sizes: list[int], data: st.DataObject) -> None:
    array = np.array(sizes)
    cap = np.array([data.draw(st.integers(0, 320)) for _ in sizes])
    floor = np.array([data.draw(st.integers(0, 40)) for _ in sizes])
    low, high = np.minimum(floor, array), np.minimum(cap, array)
    if (low > high).any():
        with pytest.raises(ValueError, match="above its cap"):
            apportion(array, 0, floor=floor, cap=cap)
        return
    budget = data.draw(st.integers(int(low.sum()), int(high.sum())))
    counts = apportion(array, budget, floor=floor, cap=cap)
    assert counts.sum() == budget
    assert (counts >= low).all()
    assert (counts <= high).all()
    # Between its bounds a group has its proportional share: λ·size for one λ, to within rounding.
    free = (counts > low) & (counts < high)
    if free.any():
        ratio_low = ((counts[free] - 1) / array[free]).max()
        ratio_high = ((counts[free] + 1) / array[free]).min()
        assert ratio_low < ratio_high


def test_large_sizes_do_not_overflow() -> None:
    sizes = np.array([1_500_000_000, 999_999_999, 500_000_001, 3])
    counts = apportion(sizes, 1_234_567_891)
    assert counts.sum() == 1_234_567_891
    assert counts[3] in (1, 2)


def test_a_budget_that_the_bounds_cannot_meet_is_refused() -> None:
    sizes = np.array([5, 5])
    with pytest.raises(ValueError, match="allow 6 to 10"):
        apportion(sizes, 5, floor=np.array([3, 3]))
    with pytest.raises(ValueError, match="allow 2 to 4"):
        apportion(sizes, 5, cap=np.array([2, 2]))


def test_bounds_name_their_groups() -> None:
    names = np.array(["cat", "dog", "eel"])
    assert bound_per_group("floor", {"dog": 2}, names).tolist() == [0, 2, 0]
    assert bound_per_group("cap", {"dog": 2}, names)[1] == 2
    assert bound_per_group("cap", 4, names).tolist() == [4, 4, 4]
    assert bound_per_group("cap", None, names) is None
    with pytest.raises(ValueError, match="'cow', which no row has"):
        bound_per_group("floor", {"cow": 1}, names)
    for bad in (-1, 1.5, True):
        with pytest.raises(ValueError, match="floor of group 'dog'"):
            bound_per_group("floor", {"dog": bad}, names)
