"""Tests of the kernels that run in the interpreter and on a device.

A class per operator; `test_interpret` and `test_gpu` subclass them and define the fixture `device`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from lc_engine.kernels import apply_thresholds as threshold_kernels
from lc_engine.kernels import config, philox
from lc_engine.kernels import linear_confidence as linear_kernels
from lc_engine.kernels import masked_linear as layer_kernels
from lc_engine.kernels import mlp_confidence as mlp_kernels
from lc_engine.kernels import prototype_confidence as prototype_kernels
from lc_engine.kernels import token_nll as token_kernels
from lc_engine.kernels.saliency import signed
from lc_engine.kernels.tiles import Tile
from lc_engine.masking import Masking
from lc_engine.ops import apply_thresholds, masked_linear
from lc_engine.ops import philox as reference_philox
from lc_engine.ops.token_nll import token_nll
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Iterator

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Small and different in every dimension, so that every loop runs more than once.
TILE = Tile(rows=16, classes=8, sub_models=4, depth=16, warps=4, stages=2)
# A deep head has many programs, which the interpreter takes its time for: larger blocks.
MLP_TILE = Tile(rows=32, classes=16, sub_models=1, depth=32, warps=4, stages=2)
TOLERANCE = 1e-5
INFINITY = float("inf")


def ids(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def masked(weight: Tensor, saliency: Tensor | None, threshold: Tensor) -> Tensor:
    score = weight.abs().float() if saliency is None else saliency
    return torch.where(score >= threshold, weight, 0)


def at_label(logits: Tensor, labels: Tensor | None) -> Tensor:
    log_p = torch.log_softmax(logits.double(), -1)
    if labels is None:
        return log_p.max(-1).values
    return log_p[torch.arange(len(labels), device=labels.device), labels]


def scores(log_p: Tensor, omega: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loss = torch.where(omega[:, None] == 0, 0.0, -omega[:, None] * log_p)
    return (omega[:, None] * log_p.exp()).sum(0), loss.sum(0), log_p


def errors(ours: tuple, naive: tuple, truth: tuple) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield |ours − truth| of each result, and |torch in the same dtype − truth| + tolerance."""
    for name, a, b, c in zip(("lc", "loss", "log_probs"), ours, naive, truth, strict=True):
        assert a.shape == c.shape
        assert a.dtype == torch.float32
        yield name, (a.double() - c).abs(), (b - c).abs() + TOLERANCE


def assert_no_worse(ours: tuple, naive: tuple, truth: tuple) -> None:
    """No error is larger than that of torch in the same dtype."""
    for name, error, allowed in errors(ours, naive, truth):
        assert bool((error <= allowed).all()), f"{name}: error {error.max():.2e}"


def assert_no_worse_in_all(ours: tuple, naive: tuple, truth: tuple) -> None:
    """The mean error is at most that of torch in the same dtype, the largest at most twice that.

    For hidden activations rounded to half precision, which torch does in another order of sums.
    """
    for name, error, allowed in errors(ours, naive, truth):
        assert error.mean() <= allowed.mean(), f"{name}: {error.mean():.2e} > {allowed.mean():.2e}"
        assert error.max() <= 2 * allowed.max(), f"{name}: {error.max():.2e} > {allowed.max():.2e}"


def assert_same_bits(ours: Tensor, other: Tensor) -> None:
    assert ours.dtype == other.dtype
    bits = {2: torch.int16, 4: torch.int32}[ours.element_size()]
    assert torch.equal(ours.contiguous().view(bits), other.contiguous().view(bits))


def uniform_path(sub_models: int, device: str) -> Tensor:
    return torch.full((sub_models,), 1 / sub_models, dtype=torch.float64, device=device)


class CountedKernel:
    """A kernel that counts its launches."""

    def __init__(self, kernel: object) -> None:
        self.kernel, self.launches = kernel, 0

    def __getitem__(self, grid: object) -> object:
        self.launches += 1
        return self.kernel[grid]  # type: ignore[index]


class LinearSuite:
    def head(self, device, dtype, seed, shape=(21, 23, 45, 6), bias=True):
        samples, classes, depth, sub_models = shape
        torch.manual_seed(seed)
        x = torch.randn(samples, depth).to(device, dtype)
        w = (0.4 * torch.randn(classes, depth)).to(device, dtype)
        b = torch.randn(classes).to(device, dtype) if bias else None
        y = torch.randint(0, classes, (samples,), device=device)
        t = torch.linspace(0, 0.8, sub_models).to(device)
        omega = torch.rand(sub_models, dtype=torch.float64).to(device)
        return x, w, b, y, t, omega / omega.sum()

    def expected(self, x, w, b, y, t, omega, saliency=None, dtype=torch.float64):
        log_p = []
        for k in range(len(t)):
            score = saliency if saliency is None or saliency.dim() == 2 else saliency[k]
            product = x.to(dtype) @ masked(w, score, t[k]).to(dtype).T
            log_p.append(at_label(product if b is None else product + b.to(dtype), y))
        return scores(torch.stack(log_p), omega)

    def check(self, x, w, b, y, t, omega, saliency=None, seed=None, **how):
        splits = how.pop("splits", None)
        head = linear_kernels.prepare(w, b, t, saliency, seed, tile=how.pop("tile", TILE), **how)
        ours = linear_kernels.linear_confidence(x, head, y, omega, True, splits=splits)
        if seed is not None:
            saliency = reference_philox.uniform(tuple(w.shape), seed, device=w.device)
        naive = self.expected(x, w, b, y, t, omega, saliency, torch.promote_types(x.dtype, w.dtype))
        assert_no_worse(ours, naive, self.expected(x, w, b, y, t, omega, saliency))
        return ours

    @pytest.mark.parametrize("data", [1, 2])
    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    @pytest.mark.parametrize("premasked", [False, True], ids=["expanded", "premasked"])
    @pytest.mark.parametrize("source", ["magnitude", "given", "random"])
    def test_scores(self, device, dtype, premasked, source, data):
        x, w, b, y, t, omega = self.head(device, dtype, data)
        saliency = torch.rand(w.shape, device=device) if source == "given" else None
        seed = -(2**40) - 5 if source == "random" else None
        self.check(x, w, b, y, t, omega, saliency, seed, premasked=premasked)

    @pytest.mark.parametrize(
        "shape",
        [(1, 1, 1, 1), (16, 8, 16, 4), (17, 9, 17, 5), (3, 40, 128, 1), (33, 2, 7, 9)],
        ids=str,
    )
    @pytest.mark.parametrize("premasked", [False, True], ids=["expanded", "premasked"])
    def test_shapes(self, device, shape, premasked):
        self.check(*self.head(device, torch.float32, 2, shape), premasked=premasked)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=ids)
    @pytest.mark.parametrize("premasked", [False, True], ids=["expanded", "premasked"])
    def test_the_shipped_tile(self, device, dtype, premasked):
        shape = (130, 33, 72, 9)
        self.check(*self.head(device, dtype, 3, shape), tile=None, premasked=premasked)

    def test_without_labels_or_bias(self, device):
        x, w, b, _, t, omega = self.head(device, torch.float32, 4, bias=False)
        self.check(x, w, b, None, t, omega)

    def test_two_dtypes_meet_in_float32(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 5)
        self.check(x.bfloat16(), w, b, y, t, omega)
        self.check(x, w.half(), b, y, t, omega)

    def test_masks_that_do_not_nest(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 6)
        saliency = torch.rand(len(t), *w.shape, device=device)
        self.check(x, w, b, y, t, omega, saliency)
        with pytest.raises(ValueError, match="premasked"):
            linear_kernels.prepare(w, b, t, saliency, None, premasked=False)

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    def test_ties_at_a_threshold_are_kept(self, device, dtype):
        x, w, b, y, _, omega = self.head(device, dtype, 7)
        t = w.abs().float().flatten().sort().values[:: w.numel() // 6][:6].contiguous()
        for premasked in (False, True):
            self.check(x, w, b, y, t, omega, premasked=premasked)

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    def test_keep_all_is_dense_bit_for_bit(self, device, dtype):
        x, w, b, y, _, omega = self.head(device, dtype, 8)
        paths = []
        for premasked in (False, True):
            for t in (torch.zeros(6), torch.full((6,), -INFINITY)):
                head = linear_kernels.prepare(
                    w, b, t.to(device), None, None, tile=TILE, premasked=premasked
                )
                paths.append(linear_kernels.linear_confidence(x, head, y, omega, True)[2])
        for path in paths:
            assert_same_bits(path, paths[0][:1].expand(6, -1))

    @pytest.mark.parametrize("classes", [1, 3, 10, 23])
    def test_drop_all_is_uniform_exactly(self, device, classes):
        x, w, _, y, t, _ = self.head(device, torch.float32, 9, (19, classes, 45, 6))
        for premasked in (False, True):
            head = linear_kernels.prepare(
                w, None, t + INFINITY, None, None, tile=TILE, premasked=premasked
            )
            lc, loss, _ = linear_kernels.linear_confidence(
                x, head, y, uniform_path(6, device), False
            )
            assert torch.equal(lc, torch.full_like(lc, 1 / classes))
            torch.testing.assert_close(
                loss, torch.full_like(loss, classes).log(), atol=1e-6, rtol=1e-6
            )

    def test_one_class_is_certain(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 10, (5, 1, 20, 3))
        lc, loss, _ = self.check(x, w, b, y, t, omega)
        assert torch.equal(loss, torch.zeros_like(loss))
        torch.testing.assert_close(lc, torch.ones_like(lc), atol=1e-7, rtol=0)

    def test_a_split_path_has_the_same_bits(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 11, (21, 9, 33, 14))
        whole = self.check(x, w, b, y, t, omega, splits=1)
        for splits in (2, 4):
            for a, c in zip(whole, self.check(x, w, b, y, t, omega, splits=splits), strict=True):
                assert_same_bits(a, c)

    def test_a_row_does_not_depend_on_its_batch(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 12)
        head = linear_kernels.prepare(w, b, t, None, None, tile=TILE)
        whole = linear_kernels.linear_confidence(x, head, y, omega, True)
        order = torch.randperm(len(x), device=device)
        for rows in (order[:1], order[1:8], order):
            part = linear_kernels.linear_confidence(
                x[rows].contiguous(), head, y[rows], omega, True
            )
            # The interpreter multiplies with the host's BLAS, whose rounding may depend on a row's
            # index in the tile.
            exact = {"rtol": 0, "atol": 0} if device == "cuda" else {"rtol": 1e-5, "atol": 1e-6}
            for got, all_rows in zip(part, whole, strict=True):
                torch.testing.assert_close(got, all_rows[..., rows], **exact)

    def test_nan_stays_in_its_row(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 13)
        head = linear_kernels.prepare(w, b, t, None, None, tile=TILE)
        clean, _, _ = linear_kernels.linear_confidence(x, head, y, omega, False)
        x[18, 3] = float("nan")
        lc, loss, _ = linear_kernels.linear_confidence(x, head, y, omega, False)
        others = torch.arange(len(x), device=device) != 18
        assert bool(lc[18].isnan())
        assert bool(loss[18].isnan())
        assert torch.equal(lc[others], clean[others])

    def test_a_whole_tile_of_impossible_classes(self, device):
        x, w, b, y, t, omega = self.head(device, torch.float32, 14)
        b[:9] = -INFINITY
        omega[0] = 0.0
        y[:] = torch.randint(9, 23, y.shape, device=device)
        self.check(x, w, b, y, t, omega)
        y[0] = 2
        head = linear_kernels.prepare(w, b, t, None, None, tile=TILE)
        lc, loss, path = linear_kernels.linear_confidence(x, head, y, omega, True)
        assert float(lc[0]) == 0
        assert float(loss[0]) == INFINITY
        assert bool((path[:, 0] == -INFINITY).all())
        # An infinite loss with weight 0 counts 0.
        zeros = torch.zeros_like(omega)
        assert float(linear_kernels.linear_confidence(x, head, y, zeros, False)[1][0]) == 0

    def test_one_launch_and_none_for_an_empty_batch(self, device, monkeypatch):
        counted = CountedKernel(linear_kernels._linear_confidence_kernel)
        monkeypatch.setattr(linear_kernels, "_linear_confidence_kernel", counted)
        x, w, b, y, t, omega = self.head(device, torch.float32, 15)
        head = linear_kernels.prepare(w, b, t, None, None, tile=TILE)
        linear_kernels.linear_confidence(x, head, y, omega, True, splits=1)
        assert counted.launches == 1
        lc, loss, path = linear_kernels.linear_confidence(x[:0], head, y[:0], omega, True)
        assert counted.launches == 1
        assert lc.shape == loss.shape == (0,)
        assert path.shape == (6, 0)


class PrototypeSuite:
    def batch(self, device, dtype, seed, shape=(5, 21, 11, 45)):
        sub_models, samples, classes, depth = shape
        torch.manual_seed(seed)
        z = torch.randn(sub_models, samples, depth).to(device, dtype)
        mu = torch.randn(classes, depth).to(device, dtype)
        y = torch.randint(0, classes, (samples,), device=device)
        return z, mu, y

    def expected(self, z, mu, y, logit, temperature, omega, dtype=torch.float64):
        z, mu = z.to(dtype), mu.to(dtype)
        if logit == "cosine":
            lengths = z.norm(dim=-1).clamp_min(1e-12), mu.norm(dim=-1).clamp_min(1e-12)
            logits = z @ mu.T / lengths[0].unsqueeze(-1) / lengths[1]
        else:
            d = (z.unsqueeze(2) - mu).square().sum(-1).sqrt()
            logits = 1 / d.clamp_min(1e-12) if logit == "inverse_distance" else -d.square()
        log_p = torch.stack([at_label(one / temperature, y) for one in logits])
        return scores(log_p, omega)

    def run(self, z, mu, y, logit, temperature, omega, tile=TILE, splits=None):
        head = prototype_kernels.prepare(mu, logit, temperature, tile=tile)
        return prototype_kernels.prototype_confidence(
            z, head, y, omega, True, min_distance=1e-12, min_norm=1e-12, splits=splits
        )

    def check(self, z, mu, y, logit, temperature=1.0, **how):
        omega = uniform_path(len(z), str(z.device))
        ours = self.run(z, mu, y, logit, temperature, omega, **how)
        naive = self.expected(z, mu, y, logit, temperature, omega, z.dtype)
        assert_no_worse(ours, naive, self.expected(z, mu, y, logit, temperature, omega))
        return ours

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    @pytest.mark.parametrize("logit", list(prototype_kernels.LOGITS))
    def test_scores(self, device, dtype, logit):
        z, mu, y = self.batch(device, dtype, 1)
        # Squared distances are near 90 here: the temperature scales them to the size of logits.
        self.check(z, mu, y, logit, 20.0 if logit == "neg_sq_distance" else 0.3)

    @pytest.mark.parametrize("logit", list(prototype_kernels.LOGITS))
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 16, 8, 16), (3, 17, 9, 33)], ids=str)
    def test_shapes(self, device, shape, logit):
        z, mu, y = self.batch(device, torch.float32, 2, shape)
        self.check(z, mu, y, logit, 5.0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=ids)
    @pytest.mark.parametrize("logit", ["inverse_distance", "cosine"])
    def test_the_shipped_tile(self, device, dtype, logit):
        z, mu, y = self.batch(device, dtype, 3, (2, 70, 33, 72))
        self.check(z, mu, y, logit, tile=None)

    def test_small_distances_keep_their_digits(self, device):
        z, mu, y = self.batch(device, torch.float32, 4, (2, 20, 7, 45))
        mu += 100.0
        mu[1:] = mu[0] + 0.02 * torch.randn_like(mu[1:])
        z[:] = mu[y] + 0.1 * torch.randn_like(z)
        self.check(z, mu, y, "inverse_distance")

    def test_a_sample_on_its_prototype_is_certain(self, device):
        z, mu, y = self.batch(device, torch.float32, 5)
        z[:] = mu[y]
        lc, loss, _ = self.check(z, mu, y, "inverse_distance")
        torch.testing.assert_close(lc, torch.ones_like(lc), atol=1e-7, rtol=0)
        assert torch.equal(loss, torch.zeros_like(loss))

    def test_equal_distances_are_uniform_exactly(self, device):
        z, mu, y = self.batch(device, torch.float32, 6)
        mu[:] = 0.0
        for logit in prototype_kernels.LOGITS:
            lc, _, _ = self.check(z, mu, y, logit)
            assert torch.equal(lc, torch.full_like(lc, 1 / len(mu)))

    def test_without_labels(self, device):
        z, mu, _ = self.batch(device, torch.float32, 7)
        self.check(z, mu, None, "cosine", 0.1)

    def test_a_split_path_has_the_same_bits(self, device):
        z, mu, y = self.batch(device, torch.float32, 8)
        for logit in ("inverse_distance", "cosine"):
            whole = self.check(z, mu, y, logit, splits=1)
            for a, b in zip(whole, self.check(z, mu, y, logit, splits=3), strict=True):
                assert_same_bits(a, b)

    def test_one_launch_and_none_for_an_empty_batch(self, device, monkeypatch):
        counted = CountedKernel(prototype_kernels._prototype_confidence_kernel)
        monkeypatch.setattr(prototype_kernels, "_prototype_confidence_kernel", counted)
        z, mu, y = self.batch(device, torch.float32, 9)
        self.check(z, mu, y, "inverse_distance", splits=1)
        assert counted.launches == 1
        empty = self.run(z[:, :0].contiguous(), mu, y[:0], "cosine", 1.0, uniform_path(5, device))
        assert counted.launches == 1
        assert [t.shape for t in empty] == [(0,), (0,), (5, 0)]


class MLPSuite:
    def head(self, device, dtype, seed, widths, samples=37, sub_models=3):
        torch.manual_seed(seed)
        pairs = list(itertools.pairwise(widths))
        weights = [(torch.randn(o, i) / i**0.5).to(device, dtype) for i, o in pairs]
        biases = [torch.randn(o).to(device, dtype) for _, o in pairs]
        if len(biases) > 1:
            biases[0] = None
        x = torch.randn(samples, widths[0]).to(device, dtype)
        y = torch.randint(0, widths[-1], (samples,), device=device)
        t = torch.linspace(0, 0.25, sub_models) * torch.arange(1, len(weights) + 1)[:, None]
        return x, weights, biases, y, t.to(device)

    def expected(self, x, weights, biases, y, t, saliencies, activation, omega, dtype):
        act = torch.relu if activation == "relu" else torch.nn.functional.gelu
        log_p = []
        for k in range(t.shape[1]):
            hidden = x.to(dtype)
            for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
                score = None if saliencies is None else saliencies[layer]
                hidden = hidden @ masked(w, score, t[layer, k]).to(dtype).T
                hidden = hidden if b is None else hidden + b.to(dtype)
                hidden = act(hidden) if layer < len(weights) - 1 else hidden
            log_p.append(at_label(hidden, y))
        return scores(torch.stack(log_p), omega)

    def check(self, x, weights, biases, y, t, saliencies=None, seed=None, activation="relu", **how):
        omega = uniform_path(t.shape[1], str(x.device))
        splits = how.pop("splits", None)
        head = mlp_kernels.prepare(
            weights, biases, t, saliencies, seed, activation, tile=how.pop("tile", MLP_TILE), **how
        )
        ours = mlp_kernels.mlp_confidence(x, head, y, omega, True, splits=splits)
        if seed is not None:
            saliencies = [
                reference_philox.uniform(tuple(w.shape), seed, layer, w.device)
                for layer, w in enumerate(weights)
            ]
        arguments = (x, weights, biases, y, t, saliencies, activation, omega)
        naive = self.expected(*arguments, x.dtype)
        compare = assert_no_worse if x.dtype == torch.float32 else assert_no_worse_in_all
        compare(ours, naive, self.expected(*arguments, torch.float64))
        return ours

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    @pytest.mark.parametrize("source", ["magnitude", "given", "random"])
    def test_scores(self, device, dtype, source):
        x, weights, biases, y, t = self.head(device, dtype, 1, (45, 20, 11))
        given = [torch.rand(w.shape, device=device) for w in weights]
        self.check(
            x, weights, biases, y, t,
            given if source == "given" else None,
            77 if source == "random" else None,
        )  # fmt: skip

    @pytest.mark.parametrize("activation", ["relu", "gelu"])
    @pytest.mark.parametrize("widths", [(45, 11), (45, 20, 11), (33, 70, 18, 9), (5, 3, 2, 4, 1)])
    @pytest.mark.parametrize("fused", [True, False], ids=["fused", "split"])
    def test_depths(self, device, widths, fused, activation):
        head = self.head(device, torch.float32, 2, widths)
        fused = fused and len(widths) > 2
        self.check(*head, activation=activation, fused=fused)

    def test_the_shipped_tile_and_choice(self, device):
        for width in (40, 300):
            head = self.head(device, torch.float32, 3, (40, width, 33), 70, 2)
            self.check(*head, tile=None)

    def test_random_saliency_of_a_deep_head(self, device):
        x, weights, biases, y, t = self.head(device, torch.float32, 4, (33, 30, 18, 9))
        for fused in (True, False):
            self.check(x, weights, biases, y, t * 2, seed=-3, fused=fused)

    def test_split_heads_work_through_rows_in_blocks(self, device, monkeypatch):
        monkeypatch.setattr(config, "HIDDEN_BYTES", 1)
        head = self.head(device, torch.float32, 5, (33, 30, 9))
        whole = self.check(*head, fused=False)
        monkeypatch.undo()
        for a, b in zip(whole, self.check(*head, fused=False), strict=True):
            assert torch.equal(a, b)

    def test_without_labels(self, device):
        x, weights, biases, _, t = self.head(device, torch.float32, 6, (33, 30, 9))
        self.check(x, weights, biases, None, t)

    def test_drop_all_is_uniform_exactly(self, device):
        x, weights, _, y, t = self.head(device, torch.float32, 7, (33, 30, 7))
        lc, _, _ = self.check(x, weights, [None, None], y, t + INFINITY)
        assert torch.equal(lc, torch.full_like(lc, 1 / 7))

    def test_a_split_path_has_the_same_bits(self, device):
        head = self.head(device, torch.float32, 8, (33, 30, 9))
        whole = self.check(*head, splits=1)
        for a, b in zip(whole, self.check(*head, splits=2), strict=True):
            assert_same_bits(a, b)

    def test_one_launch_where_the_hidden_layer_fits(self, device, monkeypatch):
        counted = CountedKernel(mlp_kernels._mlp_confidence_kernel)
        layers = CountedKernel(layer_kernels._masked_linear_kernel)
        monkeypatch.setattr(mlp_kernels, "_mlp_confidence_kernel", counted)
        monkeypatch.setattr(layer_kernels, "_masked_linear_kernel", layers)
        x, weights, biases, y, t = self.head(device, torch.bfloat16, 9, (33, 30, 9))
        self.check(x, weights, biases, y, t, splits=1)
        assert (counted.launches, layers.launches) == (1, 0)
        self.check(x, weights, biases, y, t, splits=1, fused=False)
        assert (counted.launches, layers.launches) == (2, 1)
        self.empty(x, weights, biases, y, t)
        assert (counted.launches, layers.launches) == (2, 1)

    def empty(self, x, weights, biases, y, t):
        head = mlp_kernels.prepare(weights, biases, t, None, None, "relu")
        omega = uniform_path(t.shape[1], str(x.device))
        result = mlp_kernels.mlp_confidence(x[:0], head, y[:0], omega, True)
        assert [r.shape for r in result] == [(0,), (0,), (3, 0)]


def saliency_of(source: str, weight: Tensor):
    """Return an operator's saliency argument, and the tensor for it."""
    if source == "random":
        drawn = reference_philox.uniform(tuple(weight.shape), 2**50 + 7, device=weight.device)
        return ("random", 2**50 + 7), drawn
    given = torch.rand(weight.shape, device=weight.device) if source == "given" else None
    return given, given


def assert_close_to(ours: Tensor, naive: Tensor, truth: Tensor, tolerance: float) -> None:
    """|ours − truth| ≤ |torch in the same dtype − truth| + tolerance, for every number."""
    assert ours.shape == truth.shape
    error, allowed = (ours.double() - truth).abs(), (naive.double() - truth).abs() + tolerance
    assert bool((error <= allowed).all()), f"error {error.max():.2e}"


class LayerSuite:
    """`masked_linear` with the shipped tiles."""

    def batch(self, device, dtype, seed, shape=(3, 37, 150, 200)):
        sub_models, samples, depth, width = shape
        torch.manual_seed(seed)
        x = torch.randn(sub_models, samples, depth).to(device, dtype)
        w = (torch.randn(width, depth) / depth**0.5).to(device, dtype)
        b = torch.randn(width).to(device, dtype)
        return x, w, b, torch.linspace(0, 0.1, sub_models).to(device)

    def check(self, x, w, b, t, source="magnitude", activation=None):
        saliency, score = saliency_of(source, w)
        t = t * 5 if source != "magnitude" else t
        ours = masked_linear(x, w, b, t, saliency=saliency, activation=activation, backend="triton")
        assert ours.dtype == x.dtype
        act = {None: lambda y: y, "relu": torch.relu, "gelu": torch.nn.functional.gelu}[activation]

        def layer(dtype):
            layers = [x[k].to(dtype) @ masked(w, score, t[k]).to(dtype).T for k in range(len(t))]
            return act(torch.stack(layers) + (0 if b is None else b.to(dtype)))

        # One rounding of numbers up to about 4 to the dtype of the result.
        rounding = 4 * torch.finfo(x.dtype).eps + TOLERANCE
        assert_close_to(ours, layer(x.dtype), layer(torch.float64), rounding)
        return ours

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    @pytest.mark.parametrize("source", ["magnitude", "given", "random"])
    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    def test_outputs(self, device, dtype, source, activation):
        self.check(*self.batch(device, dtype, 1), source, activation)

    @pytest.mark.parametrize(
        "shape", [(1, 1, 1, 1), (2, 128, 64, 128), (2, 129, 65, 3), (4, 5, 300, 131)], ids=str
    )
    def test_shapes(self, device, shape):
        x, w, _, t = self.batch(device, torch.float32, 2, shape)
        self.check(x, w, None, t)

    def test_a_shared_input_is_not_copied(self, device, monkeypatch):
        x, w, b, t = self.batch(device, torch.float32, 3)
        seen = []
        launch = layer_kernels.masked_linear
        monkeypatch.setattr(
            layer_kernels,
            "masked_linear",
            lambda x, *more, **how: seen.append(x.shape) or launch(x, *more, **how),
        )
        shared = self.check(x[:1].expand(3, -1, -1), w, b, t)
        assert seen == [(37, 150)]
        assert torch.equal(shared, self.check(x[:1].repeat(3, 1, 1), w, b, t))

    def test_drop_all_leaves_the_bias_and_an_empty_batch_needs_no_launch(self, device, monkeypatch):
        x, w, b, t = self.batch(device, torch.float32, 4)
        out = masked_linear(x, w, b, t + INFINITY, backend="triton")
        assert torch.equal(out, b.expand_as(out))
        counted = CountedKernel(layer_kernels._masked_linear_kernel)
        monkeypatch.setattr(layer_kernels, "_masked_linear_kernel", counted)
        assert masked_linear(x[:, :0], w, b, t, backend="triton").shape == (3, 0, 200)
        self.check(x, w, b, t)
        assert counted.launches == 1


class TokenSuite:
    """`token_nll` with the shipped tiles."""

    def batch(self, device, dtype, seed, shape=(3, 37, 150, 300)):
        sub_models, tokens, depth, vocabulary = shape
        torch.manual_seed(seed)
        h = torch.randn(sub_models, tokens, depth).to(device, dtype)
        w = (2 * torch.randn(vocabulary, depth) / depth**0.5).to(device, dtype)
        y = torch.randint(0, vocabulary, (tokens,), device=device)
        return h, w, y, torch.linspace(0, 0.2, sub_models).to(device)

    def check(self, h, w, y, t, source="whole", bias=None):
        saliency, score = saliency_of(source, w)
        t = None if source == "whole" else t * 3 if source != "magnitude" else t
        ours = token_nll(
            h, w, y, bias=bias, thresholds=t, saliency=saliency, return_entropy=True,
            backend="triton",
        )  # fmt: skip

        def expected(dtype):
            logits = []
            for k in range(len(h)):
                weight = w if t is None else masked(w, score, t[k])
                product = h[k].to(dtype) @ weight.to(dtype).T
                logits.append(product if bias is None else product + bias.to(dtype))
            log_p = torch.log_softmax(torch.stack(logits).double(), -1)
            at = y.expand(len(h), -1).unsqueeze(-1)
            entropy = -torch.where(log_p.exp() == 0, 0, log_p.exp() * log_p).sum(-1)
            return -log_p.gather(-1, at).squeeze(-1), entropy

        for a, b, c in zip(ours, expected(h.dtype), expected(torch.float64), strict=True):
            assert a.dtype == torch.float32
            assert_close_to(a, b, c, TOLERANCE)
        plain = token_nll(h, w, y, bias=bias, thresholds=t, saliency=saliency, backend="triton")
        torch.testing.assert_close(plain, ours.nll, rtol=1e-6, atol=1e-6)
        return ours

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    @pytest.mark.parametrize("source", ["whole", "magnitude", "given", "random"])
    def test_scores(self, device, dtype, source):
        self.check(*self.batch(device, dtype, 1, (2, 37, 100, 300)), source)

    @pytest.mark.parametrize(
        "shape", [(1, 1, 1, 1), (2, 128, 64, 128), (2, 129, 65, 257), (1, 3, 200, 2)], ids=str
    )
    def test_shapes(self, device, shape):
        self.check(*self.batch(device, torch.float32, 2, shape), "magnitude")

    def test_impossible_tokens(self, device):
        h, w, _, t = self.batch(device, torch.float32, 3)
        bias = torch.zeros(300, device=device)
        bias[:140] = -INFINITY  # a whole tile
        y = torch.randint(140, 300, (37,), device=device)
        self.check(h, w, y, t, "magnitude", bias)

    def test_drop_all_is_uniform(self, device):
        h, w, y, t = self.batch(device, torch.float32, 4)
        nll, entropy = token_nll(
            h, w, y, thresholds=t + INFINITY, return_entropy=True, backend="triton"
        )
        want = torch.full_like(nll, 300.0).log()
        torch.testing.assert_close(nll, want, rtol=1e-6, atol=0)
        torch.testing.assert_close(entropy, want, rtol=1e-6, atol=0)

    def test_nan_stays_in_its_token(self, device):
        h, w, y, _ = self.batch(device, torch.float32, 5)
        clean = token_nll(h, w, y, backend="triton")
        h[1, 9, 3] = float("nan")
        found = token_nll(h, w, y, backend="triton")
        assert bool(found[1, 9].isnan())
        found[1, 9] = clean[1, 9]
        assert torch.equal(found, clean)

    def test_one_launch_and_none_for_an_empty_batch(self, device, monkeypatch):
        h, w, y, _ = self.batch(device, torch.float32, 6)
        counted = CountedKernel(token_kernels._token_nll_kernel)
        monkeypatch.setattr(token_kernels, "_token_nll_kernel", counted)
        token_nll(h, w, y, return_entropy=True, backend="triton")
        assert counted.launches == 1
        assert token_nll(h[:, :0], w, y[:0], backend="triton").shape == (3, 0)
        assert counted.launches == 1


class ThresholdSuite:
    SHAPES = ((3, 5), (0,), (threshold_kernels.BLOCK,), (2 * threshold_kernels.BLOCK + 7,), (1, 1))

    def tensors(self, device, dtype, seed):
        torch.manual_seed(seed)
        return [torch.randn(shape).to(device, dtype) for shape in self.SHAPES]

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    @pytest.mark.parametrize("source", ["magnitude", "given", "random"])
    def test_masks_bit_for_bit(self, device, dtype, source):
        weights = self.tensors(device, dtype, 1)
        live = [torch.full_like(w, 9) for w in weights]
        thresholds = [0.1, 0.2, 0.3, 0.4, 0.0]
        given = [torch.rand(w.shape, device=device) for w in weights]
        seed = 2**63 + 11 if source == "random" else None
        threshold_kernels.apply_thresholds(
            weights, live, thresholds, given if source == "given" else [], seed
        )
        for i, weight in enumerate(weights):
            if source == "magnitude":
                score = weight.abs().float()
            elif source == "given":
                score = given[i]
            else:
                score = reference_philox.uniform(tuple(weight.shape), seed, i, device)
            kept = score >= torch.tensor(thresholds[i], dtype=torch.float32)
            assert_same_bits(live[i], torch.where(kept, weight, 0))

    def test_ties_and_unaligned_addresses(self, device):
        flat = torch.randn(4100, device=device)
        weights, live = [flat[1:2051], flat[2051:]], [torch.zeros(2050), torch.zeros(2049)]
        live = [target.to(device) for target in live]
        threshold = float(flat[7].abs())
        threshold_kernels.apply_thresholds(weights, live, [threshold] * 2, [], None)
        for weight, target in zip(weights, live, strict=True):
            assert torch.equal(target, torch.where(weight.abs() >= threshold, weight, 0))
        assert float(live[0][6]) == float(flat[7])

    @pytest.mark.parametrize("dtype", DTYPES, ids=ids)
    def test_the_masks_of_tied_weights_are_those_of_the_reference(self, device, dtype):
        weights = [(w.float() * 2).round().to(dtype) / 2 for w in self.tensors(device, dtype, 3)]
        named = {str(i): w for i, w in enumerate(weights) if w.numel()}
        masks = Masking().masks(named, LearningPath.explicit([0.9, 0.5, 0.2]))
        pristine, total = list(named.values()), sum(w.numel() for w in weights)
        for bounds, count in zip(masks.thresholds.tolist(), (0.9, 0.5, 0.2), strict=True):
            live = [torch.full_like(w, 9) for w in pristine]
            want = [torch.full_like(w, 9) for w in pristine]
            threshold_kernels.apply_thresholds(pristine, live, bounds, masks.saliency, None)
            apply_thresholds(pristine, want, bounds, masks.saliency, backend="reference")
            for one, other in zip(live, want, strict=True):
                assert_same_bits(one, other)
            kept = sum(int((s >= t).sum()) for s, t in zip(masks.saliency, bounds, strict=True))
            assert kept == round(count * total)

    def test_one_launch_for_all_tensors(self, device, monkeypatch):
        counted = CountedKernel(threshold_kernels._apply_thresholds_kernel)
        monkeypatch.setattr(threshold_kernels, "_apply_thresholds_kernel", counted)
        weights = self.tensors(device, torch.float32, 2)
        threshold_kernels.apply_thresholds(weights, weights, [0.5] * 5, [], None)
        assert counted.launches == 1
        threshold_kernels.apply_thresholds([weights[1]], [weights[1]], [0.5], [], None)
        assert counted.launches == 1


@triton.jit
def _draw(out_ptr, first, stream, seed, block: tl.constexpr):
    offset = tl.arange(0, block)
    tl.store(out_ptr + offset, philox.uniform(first + offset.to(tl.int64), stream, seed))


def philox_word(index: int, stream: int, seed: int) -> int:
    """Philox4x32-10 as in its paper, in Python integers."""
    counter = [index & 0xFFFFFFFF, index >> 32, stream, 0]
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (b >> 32) ^ counter[1] ^ key[0],
            b & 0xFFFFFFFF,
            (a >> 32) ^ counter[3] ^ key[1],
            a & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter[0]


class PhiloxSuite:
    @pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**64 - 3])
    @pytest.mark.parametrize("first", [0, 2**32 - 20])
    def test_numbers_are_the_paper_s(self, device, seed, first):
        out = torch.zeros(64, device=device)
        _draw[(1,)](out, first, 3, signed(seed), block=64)
        words = [philox_word(first + i, 3, seed) for i in range(64)]
        assert out.tolist() == [(word >> 8) / 2**24 for word in words]

    def test_numbers_are_the_reference_s(self, device):
        out = torch.zeros(64, device=device)
        _draw[(1,)](out, 0, 5, signed(-9), block=64)
        assert torch.equal(out, reference_philox.uniform((64,), -9, 5, device))
