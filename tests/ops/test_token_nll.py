from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from lc_engine.ops import TokenScores, philox, token_nll

if TYPE_CHECKING:
    from lc_engine.ops.contract import Backend

Draw = Callable[..., Tensor]

# (sub-models, tokens, dims, vocabulary): one of each, odd, several tiles of the vocabulary and of
# tokens, one dim and one token against several of the native form's segments of the vocabulary.
SHAPES = [
    (1, 1, 1, 1),
    (3, 17, 7, 5),
    (2, 5, 2100, 1203),
    (2, 2500, 1100, 1000),
    (1, 300, 1, 4097),
    (2, 1, 65, 8200),
]


def plain_loop(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    thresholds: Tensor | None = None,
    saliency: Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """NLL and entropy (K, T) in float64, from full logits."""
    w, y = weight.double().numpy(), targets.numpy()
    score = np.abs(w) if saliency is None else saliency.double().numpy()
    nll, entropy = [], []
    for k, h in enumerate(hidden.double().numpy()):
        kept = w if thresholds is None else np.where(score >= float(thresholds[k]), w, 0.0)
        logits = h @ kept.T + (0.0 if bias is None else bias.double().numpy())
        logits = logits - logits.max(1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        nll.append(-logs[np.arange(len(y)), y])
        p = np.exp(logs)
        entropy.append(-np.where(p > 0, p * np.where(p > 0, logs, 0.0), 0.0).sum(1))
    return np.stack(nll), np.stack(entropy)


def head(draw: Draw, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sub_models, tokens, dims, vocabulary = shape
    weight = draw(vocabulary, dims) * 3 / dims**0.5
    return (
        draw(sub_models, tokens, dims),
        weight,
        torch.arange(tokens) * 7 % vocabulary,
        draw(vocabulary),
    )


def close(ours: Tensor, wanted: np.ndarray, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(ours.double().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_matches_full_logits(
    draw: Draw, shape: tuple[int, int, int, int], masked: bool, backend: Backend
) -> None:
    h, w, y, b = head(draw, shape)
    t = torch.linspace(0.0, float(w.abs().max()), shape[0]) if masked else None
    nll, entropy = token_nll(h, w, y, bias=b, thresholds=t, return_entropy=True, backend=backend)
    wanted_nll, wanted_entropy = plain_loop(h, w, y, b, t)
    close(nll, wanted_nll)
    close(entropy, wanted_entropy)
    assert torch.equal(token_nll(h, w, y, bias=b, thresholds=t, backend=backend), nll)


def check_dtype(draw: Draw, dtype: torch.dtype, tolerance: float, backend: Backend) -> None:
    h, w, y, b = (x.to(dtype) if x.is_floating_point() else x for x in head(draw, (2, 9, 33, 70)))
    t = torch.tensor([0.1, 0.4])
    scores = token_nll(h, w, y, bias=b, thresholds=t, return_entropy=True, backend=backend)
    assert isinstance(scores, TokenScores)
    assert scores.nll.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for ours, wanted in zip(scores, plain_loop(h, w, y, b, t), strict=True):
        close(ours, wanted, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float16, 2e-5)])
def test_float64_and_float16_accumulate_wide(
    draw: Draw, dtype: torch.dtype, tolerance: float
) -> None:
    check_dtype(draw, dtype, tolerance, "auto")


def test_bfloat16_accumulates_wide(draw: Draw, backend: Backend) -> None:
    check_dtype(draw, torch.bfloat16, 2e-5, backend)


@pytest.mark.parametrize("source", ["given", "random"])
def test_saliency(draw: Draw, source: str, backend: Backend) -> None:
    h, w, y, _ = head(draw, (3, 8, 11, 40))
    given = draw(40, 11) if source == "given" else philox.uniform((40, 11), 5)
    t = torch.tensor([-0.5, 0.2, 0.7])
    ours = token_nll(
        h,
        w,
        y,
        thresholds=t,
        saliency=given if source == "given" else ("random", 5),
        backend=backend,
    )
    close(ours, plain_loop(h, w, y, None, t, given)[0])


def test_ties_stay_and_a_threshold_below_all_is_the_whole_head(
    draw: Draw, backend: Backend
) -> None:
    h, _, y, _ = head(draw, (2, 6, 10, 12))
    w = torch.full((12, 10), 0.25)
    w[::2] = -0.5
    ours = token_nll(h, w, y, thresholds=torch.tensor([0.25, 0.5]), backend=backend)
    assert torch.equal(ours[:1], token_nll(h[:1], w, y, backend=backend))
    close(ours[1:], plain_loop(h[1:], w, y, None, torch.tensor([0.5]))[0])


def test_an_empty_head_is_uniform(draw: Draw, backend: Backend) -> None:
    h, w, y, _ = head(draw, (1, 6, 10, 37))
    nll, entropy = token_nll(
        h, w, y, thresholds=torch.tensor([1e9]), return_entropy=True, backend=backend
    )
    close(nll, np.full((1, 6), np.log(37)), 1e-6)
    close(entropy, np.full((1, 6), np.log(37)), 1e-6)


def test_tokens_ruled_out_by_the_bias_have_no_part(draw: Draw, backend: Backend) -> None:
    h, w, y, b = head(draw, (1, 4, 600, 4000))
    b[:2000] = -torch.inf  # whole tiles of the vocabulary
    scores = token_nll(h, w, torch.full_like(y, 3000), bias=b, return_entropy=True, backend=backend)
    wanted = plain_loop(h, w[2000:], torch.full_like(y, 1000), b[2000:])
    for ours, right in zip(scores, wanted, strict=True):
        close(ours, right)
    assert token_nll(h, w, torch.zeros_like(y), bias=b, backend=backend).isposinf().all()


def test_nan_stays_in_its_token_and_large_logits_do_not_overflow(
    draw: Draw, backend: Backend
) -> None:
    h, w, y, _ = head(draw, (2, 5, 8, 30))
    h[0, 2] = torch.nan
    h[1] *= 1e4
    nll, entropy = token_nll(h, w, y, return_entropy=True, backend=backend)
    bad = torch.zeros(2, 5, dtype=torch.bool)
    bad[0, 2] = True
    assert torch.equal(nll.isnan(), bad)
    assert torch.equal(entropy.isnan(), bad)
    close(nll[1], plain_loop(h[1:], w, y)[0][0], 1e-5)


def test_no_tokens_and_views(draw: Draw, backend: Backend) -> None:
    w, none = draw(5, 3), torch.zeros(0, dtype=torch.int64)
    nll, entropy = token_nll(draw(2, 0, 3), w, none, return_entropy=True, backend=backend)
    assert nll.shape == entropy.shape == (2, 0)
    h, y = draw(3, 8, 6)[:, ::2, ::2], torch.arange(8, dtype=torch.int32)[::2] % 5
    close(token_nll(h, w, y, backend=backend), plain_loop(h, w, y.long())[0])


def test_operator_is_registered_as_it_behaves(draw: Draw, backend: Backend) -> None:
    h, w, y, b = head(draw, (2, 4, 5, 9))
    t = torch.tensor([0.0, 0.5])
    for entropy in (False, True):
        torch.library.opcheck(
            torch.ops.lc_engine.token_nll.default,
            (h, w, y, b, t, None, None, entropy, backend),
            test_utils=("test_schema", "test_faketensor"),
        )


H, W, Y = torch.ones(2, 3, 4), torch.ones(5, 4), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.ones(3, 4)}, r"hidden must have shape \(K, T, 4\)"),
        ({"hidden": H.bfloat16()}, "vocab_weight is torch.float32 but hidden is torch.bfloat16"),
        ({"vocab_weight": torch.ones(0, 4)}, "V = 0"),
        ({"targets": Y[:2]}, r"targets must have shape \(3,\)"),
        ({"targets": torch.zeros(3)}, "targets must be an integer tensor"),
        ({"targets": torch.tensor([0, -100, 0])}, r"targets\[1\] is -100.*positions that count"),
        ({"targets": torch.tensor([0, 1, 5])}, r"targets\[2\] is 5, but must lie in \[0, 5\)"),
        ({"bias": torch.ones(4)}, r"bias must have shape \(5\)"),
        ({"thresholds": torch.ones(3)}, r"thresholds must have shape \(2\)"),
        ({"thresholds": torch.tensor([1.0, 0.0])}, "thresholds must be ascending"),
        ({"saliency": W}, "saliency is given without thresholds"),
        (
            {"saliency": torch.ones(4, 5), "thresholds": torch.ones(2)},
            r"saliency must have shape \(5, 4\)",
        ),
        ({"saliency": "random"}, "saliency must be None, a tensor or"),
        (
            {"hidden": H.half(), "vocab_weight": W.half(), "backend": "native"},
            "backend='native' takes float32 or bfloat16 on a CPU, got torch.float16",
        ),
        ({"backend": "fast"}, "backend must be"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"hidden": H, "vocab_weight": W, "targets": Y} | change
    with pytest.raises(ValueError, match=message):
        token_nll(**arguments)  # type: ignore[call-overload]


PROBE = """
import json, resource, sys
import torch
from lc_engine import ops

tokens, vocabulary, dims, sub_models = map(int, sys.argv[1:5])
torch.set_num_threads(1)
hidden, weight = torch.randn(sub_models, tokens, dims), torch.randn(vocabulary, dims)
targets = torch.randint(vocabulary, (tokens,))
thresholds = torch.linspace(0, 1, sub_models)
masks = {"thresholds": thresholds, "backend": sys.argv[5]}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
ops.token_nll(hidden[:, :4], weight[:64], targets[:4] % 64, **masks)
before = peak()
ops.token_nll(hidden, weight, targets, return_entropy=True, **masks)
print(json.dumps({"grown": peak() - before}))
"""


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_peak_memory_does_not_hold_the_logits(backend: Backend) -> None:
    tokens, vocabulary, dims = 2048, 49_152, 16
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, (tokens, vocabulary, dims, 1)), backend],
        capture_output=True,
        text=True,
        check=True,
    )
    grown = json.loads(result.stdout)["grown"]
    assert grown <= 64e6
    assert grown < tokens * vocabulary * 4 / 5, "a fifth of the logits"
