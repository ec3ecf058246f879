from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lc_engine.ops import FallbackWarning, checks, contract, linear_confidence, path_scores

CPU = torch.device("cpu")


def test_backend_by_dtype() -> None:
    assert contract.resolve_backend("op", "auto", CPU, torch.float32) == "native"
    assert contract.resolve_backend("op", "auto", CPU, torch.bfloat16) == "native"
    assert contract.resolve_backend("op", "auto", CPU, torch.float64) == "reference"
    assert contract.resolve_backend("op", "auto", CPU, torch.float16) == "reference"
    assert contract.resolve_backend("op", "reference", CPU, torch.float32) == "reference"
    cuda = torch.device("cuda")
    assert contract.resolve_backend("op", "auto", cuda, torch.float16) == "triton"


def test_native_refuses_what_it_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"takes float32 or bfloat16 on a CPU, got torch\.float64"):
        contract.resolve_backend("op", "native", CPU, torch.float64)


@pytest.fixture
def no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "native", lambda: None)
    contract.warn_once.cache_clear()


@pytest.mark.usefixtures("no_core")
def test_without_the_core_the_fallback_says_so_once(recwarn: pytest.WarningsRecorder) -> None:
    arguments = (torch.ones(2, 3), torch.ones(4, 3), None, None, torch.zeros(1))
    with pytest.warns(FallbackWarning, match=r"linear_confidence: the C\+\+ core was not built"):
        scores = linear_confidence(*arguments)
    torch.testing.assert_close(scores.lc, torch.full((2,), 0.25))
    linear_confidence(*arguments)
    assert not recwarn.list
    with pytest.raises(ValueError, match="core was not built"):
        linear_confidence(*arguments, backend="native")


def test_finish_sums_over_the_path() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -math.inf]])
    scores = path_scores.finish(log_probs, torch.tensor([0.25, 0.75]), return_path=True)
    lc = [0.25 * math.exp(-1) + 0.75 * math.exp(-3), 0.25 * math.exp(-2)]
    torch.testing.assert_close(scores.lc, torch.tensor(lc))
    torch.testing.assert_close(scores.loss, torch.tensor([2.5, math.inf]))
    assert scores.log_probs is log_probs
    unweighted = path_scores.finish(log_probs, torch.tensor([1.0, 0.0]), return_path=False)
    torch.testing.assert_close(unweighted.loss, torch.tensor([1.0, 2.0]))
    assert unweighted.log_probs is None


def test_thresholds_come_back_in_the_saliencys_dtype() -> None:
    given = torch.tensor([0.1, 0.1, 0.5], dtype=torch.float64)
    assert checks.check_thresholds("thresholds", given, torch.float32).dtype == torch.float32
    infinite = torch.tensor([0.0, math.inf])
    assert torch.equal(checks.check_thresholds("t", infinite, torch.float32), infinite)


def test_a_graph_that_is_captured_does_not_wait_for_thresholds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = torch.tensor([1.0, math.nan], dtype=torch.float64)
    with pytest.raises(ValueError, match="must not hold NaN"):
        checks.check_thresholds("t", wrong, torch.float32)
    monkeypatch.setattr(checks, "capturing", lambda _: True)
    assert checks.check_thresholds("t", wrong, torch.float32).dtype == torch.float32


def test_default_path_weights_are_equal() -> None:
    weights = checks.check_path_weights(None, 4, CPU)
    assert weights.tolist() == [0.25] * 4
    assert weights.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("path", [True, False])
def test_fake_results_look_like_real_ones(dtype: torch.dtype, path: bool) -> None:
    features = torch.ones(2, 3, dtype=dtype)
    weight = torch.ones(4, 3, dtype=dtype)
    scores = linear_confidence(features, weight, None, None, torch.zeros(5), return_path=path)
    fake = path_scores.fake_op_result(features, 2, 5, path)
    real = path_scores.as_op_result(scores)
    assert [(t.shape, t.dtype) for t in fake] == [(t.shape, t.dtype) for t in real]


# What Python does not check, C++ does: it decides which memory is touched.
X, W = np.ones((4, 3), np.float32), np.ones((2, 3), np.float32)
T, OUT = np.zeros(5, np.float32), np.zeros((5, 4), np.float32)
Y = np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X.astype(np.float64), Y, OUT), "features must be float32"),
        ((X.T, Y, OUT), "features must be contiguous"),
        ((X[:, :2].copy(), Y, OUT), r"features must be \(samples, dims\)"),
        ((X[0], Y, OUT), "features must have 2 or 3 dimensions"),
        ((X, Y[:3], OUT), r"labels must be \(samples\)"),
        ((X, Y + 2, OUT), r"labels must lie in \[0, classes\)"),
        ((X, Y - 1, OUT), r"labels must lie in \[0, classes\)"),
        ((X, Y, OUT[:4]), "log_probs must be a writable"),
    ],
)
def test_core_checks_what_it_is_given(arguments: tuple[object, ...], message: str) -> None:
    plan = contract.native().LinearPlan(W, None, None, T, False)
    with pytest.raises(ValueError, match=message):
        plan.run(*arguments, 1)


def test_core_checks_lists_of_weights() -> None:
    core = contract.native()
    frozen = X.copy()
    frozen.setflags(write=False)
    for live in ([], [X[:2]], [X.astype(np.float64)], [frozen], [X.T]):
        with pytest.raises(ValueError, match=r"live|weights"):
            core.apply_thresholds([X], live, [0.5], [], None, 1)
