from __future__ import annotations

import math

import numpy as np
import pytest

from lc_engine.path.reduction import path_std, reduce_path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("points", [1, 3, 50])
def test_the_reduction_is_its_formulas(points, dtype):
    rng = np.random.default_rng(points)
    log_p = -rng.exponential(2.0, (points, 40)).astype(dtype)
    omega = rng.dirichlet(np.ones(points))
    found = reduce_path(log_p, omega.tolist())
    tolerance = {np.float32: 1e-7, np.float64: 1e-14}[dtype]
    for n in range(40):
        p = [math.exp(float(value)) for value in log_p[:, n]]
        lc = math.fsum(w * one for w, one in zip(omega, p, strict=True))
        loss = -math.fsum(w * float(one) for w, one in zip(omega, log_p[:, n], strict=True))
        variance = math.fsum(w * (one - lc) ** 2 for w, one in zip(omega, p, strict=True))
        assert found.lc[n] == pytest.approx(lc, rel=tolerance)
        assert found.loss[n] == pytest.approx(loss, rel=1e-14)
        assert found.lc_std[n] == pytest.approx(math.sqrt(variance), rel=tolerance, abs=3e-8)
    assert all(column.dtype == np.float64 for column in found)


def test_a_row_does_not_depend_on_the_others():
    log_p = -np.random.default_rng(0).exponential(2.0, (7, 1000)).astype(np.float32)
    whole = reduce_path(log_p, [1 / 7] * 7)
    for rows in (slice(0, 1), slice(13, 500), slice(None, None, 3)):
        part = reduce_path(log_p[:, rows], [1 / 7] * 7)
        for found, want in zip(part, whole, strict=True):
            np.testing.assert_array_equal(found, want[rows])
    np.testing.assert_array_equal(path_std(log_p, [1 / 7] * 7), whole.lc_std)


def test_lost_rows_and_weights_of_zero():
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array([[0.5, np.nan, 0.0], [0.0, 0.5, 0.0]]))
    with np.errstate(all="raise"):
        lc, loss, lc_std = reduce_path(log_p, [1.0, 0.0])
        assert (lc[0], loss[0], lc_std[0]) == (0.5, -math.log(0.5), 0.0)
        assert np.isnan([lc[1], loss[1], lc_std[1]]).all()
        assert (lc[2], loss[2], lc_std[2]) == (0.0, math.inf, 0.0)
        assert np.isnan(reduce_path(log_p[:, 1:2], [0.5, 0.5])).all()
    assert [column.shape for column in reduce_path(log_p[:, :0], [0.5, 0.5])] == [(0,)] * 3
