from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from lc_engine.ops import PrototypePlan, prototype_confidence

Draw = Callable[..., Tensor]
LOGITS = ["inverse_distance", "neg_sq_distance", "cosine"]

# (sub-models, samples, dims, classes): one of each, remainders of one to three classes in a group,
# several blocks of dims and of classes.
SHAPES = [
    (1, 1, 1, 1),
    (3, 50, 77, 13),
    (2, 130, 5, 38),
    (4, 7, 64, 3),
    (2, 33, 300, 70),
    (1, 65, 129, 32),
]


def plain_loop(
    features: Tensor, prototypes: Tensor, labels: Tensor | None, logit: str, temperature: float
) -> np.ndarray:
    """log p (K, N) in float64, one sub-model and one class after the other."""
    mu = prototypes.double().numpy()
    rows = []
    for z in features.double().numpy():
        if logit == "cosine":
            lengths = [np.maximum(np.linalg.norm(v, axis=-1), 1e-12) for v in (z, mu)]
            logits = z @ mu.T / lengths[0][:, None] / lengths[1]
        else:
            squares = np.stack([((z - one) ** 2).sum(-1) for one in mu], -1)
            distance = np.maximum(np.sqrt(squares), 1e-12)
            logits = 1 / distance if logit == "inverse_distance" else -squares
        logits = logits / temperature
        top = logits.max(1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        rows.append(logs.max(1) if labels is None else logs[np.arange(len(z)), labels.numpy()])
    return np.stack(rows)


def close(ours: Tensor, wanted: np.ndarray, logit_size: float = 1.0) -> None:
    """A log p is a difference of logits, so its error in float32 is relative to theirs."""
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-5, atol=1e-6 * (10 + logit_size))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "largest"])
def test_matches_plain_loop(
    draw: Draw, backend: str, shape: tuple[int, int, int, int], logit: str, labelled: bool
) -> None:
    sub_models, samples, dims, classes = shape
    z, mu = draw(sub_models, samples, dims), draw(classes, dims)
    labels = torch.arange(samples) * 5 % classes if labelled else None
    omega = draw(sub_models).abs() + 0.1
    scores = prototype_confidence(
        z,
        mu,
        labels,
        logit=logit,
        temperature=0.7,
        path_weights=omega,
        return_path=True,
        backend=backend,
    )
    wanted = plain_loop(z, mu, labels, logit, 0.7)
    size = 4 * dims if logit == "neg_sq_distance" else 1.0
    weights = omega.double().numpy()[:, None]
    close(scores.log_probs, wanted, size)
    close(scores.lc, (weights * np.exp(wanted)).sum(0), size)
    close(scores.loss, -(weights * wanted).sum(0), size)


@pytest.mark.parametrize("logit", LOGITS)
def test_bfloat16(draw: Draw, backend: str, logit: str) -> None:
    z, mu, labels = draw(3, 21, 35).bfloat16(), draw(6, 35).bfloat16(), torch.arange(21) % 6
    ours = prototype_confidence(z, mu, labels, logit=logit, return_path=True, backend=backend)
    close(ours.log_probs, plain_loop(z, mu, labels, logit, 1.0), 140)


@pytest.mark.parametrize("logit", LOGITS)
def test_float64_reference_is_exact(draw: Draw, logit: str) -> None:
    z, mu, labels = draw(2, 9, 14).double(), draw(5, 14).double(), torch.arange(9) % 5
    ours = prototype_confidence(z, mu, labels, logit=logit, return_path=True)
    wanted = plain_loop(z, mu, labels, logit, 1.0)
    np.testing.assert_allclose(ours.log_probs.numpy(), wanted, rtol=1e-12, atol=1e-12)


def test_small_distances_keep_their_digits(draw: Draw, backend: str) -> None:
    """|z|² + |μ|² − 2z·μ in float32 knows nothing of distances of 1e-3 between vectors of 100."""
    mu = draw(8, 60) * 0.002 + 100
    z = (mu[torch.arange(40) % 8] + draw(3, 40, 60) * 1e-3).contiguous()
    labels = torch.arange(40) % 8
    ours = prototype_confidence(z, mu, labels, return_path=True, backend=backend)
    close(ours.log_probs, plain_loop(z, mu, labels, "inverse_distance", 1.0), 200)


def test_sample_on_its_prototype(draw: Draw, backend: str) -> None:
    mu = draw(6, 20)
    ours = prototype_confidence(
        mu.unsqueeze(0), mu, torch.arange(6), return_path=True, backend=backend
    )
    assert torch.equal(ours.log_probs, torch.zeros(1, 6))
    other = prototype_confidence(mu.unsqueeze(0), mu, (torch.arange(6) + 1) % 6, backend=backend)
    assert torch.equal(other.lc, torch.zeros(6))
    torch.testing.assert_close(other.loss, torch.full((6,), 1e12))


@pytest.mark.parametrize("logit", LOGITS)
def test_equal_prototypes_share_the_probability(draw: Draw, backend: str, logit: str) -> None:
    mu = draw(1, 33).expand(70, 33)
    z = torch.cat([draw(2, 10, 33), mu[:1].expand(2, 1, 33)], 1)
    ours = prototype_confidence(z, mu, None, logit=logit, return_path=True, backend=backend)
    wanted = torch.full((2, 11), -np.log(70), dtype=torch.float32)
    torch.testing.assert_close(ours.log_probs, wanted, rtol=1.3e-7, atol=0)


@pytest.mark.parametrize("logit", LOGITS)
def test_temperatures(draw: Draw, backend: str, logit: str) -> None:
    z, mu, labels = draw(2, 30, 24), draw(9, 24), torch.arange(30) % 9
    flat = prototype_confidence(z, mu, labels, logit=logit, temperature=1e9, backend=backend)
    torch.testing.assert_close(flat.lc, torch.full((30,), 1 / 9))
    sharp = prototype_confidence(
        z, mu, labels, logit=logit, temperature=1e-6, return_path=True, backend=backend
    )
    wanted = plain_loop(z, mu, labels, logit, 1e-6)
    assert bool(sharp.loss.isfinite().all())
    np.testing.assert_allclose(sharp.log_probs.numpy(), wanted, rtol=1e-5, atol=100)
    assert torch.equal(sharp.lc > 0.5, torch.from_numpy(np.exp(wanted).mean(0) > 0.5))


def test_far_samples(draw: Draw, backend: str) -> None:
    """d² of a million: the exponentials of the others are nothing, but not a NaN."""
    z, mu, labels = draw(2, 30, 24) * 200, draw(40, 24) * 200, torch.arange(30) % 40
    ours = prototype_confidence(
        z, mu, labels, logit="neg_sq_distance", return_path=True, backend=backend
    )
    wanted = plain_loop(z, mu, labels, "neg_sq_distance", 1.0)
    np.testing.assert_allclose(ours.log_probs.numpy(), wanted, rtol=1e-5, atol=5)


def test_zero_vectors_are_orthogonal_to_all(draw: Draw, backend: str) -> None:
    z, mu = draw(1, 5, 8), draw(3, 8)
    z[0, 2] = 0
    mu[1] = 0
    ours = prototype_confidence(z, mu, None, logit="cosine", return_path=True, backend=backend)
    close(ours.log_probs, plain_loop(z, mu, None, "cosine", 1.0))
    torch.testing.assert_close(ours.lc[2], torch.tensor(1 / 3))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("logit", LOGITS)
def test_score_does_not_depend_on_the_batch(draw: Draw, logit: str) -> None:
    z, mu, labels = draw(3, 150, 90), draw(37, 90), torch.arange(150) * 11 % 37
    plan = PrototypePlan(mu, logit=logit, backend="native")
    whole = plan(z, labels, return_path=True).log_probs
    for size in (1, 7, 64):
        parts = [
            plan(z[:, i : i + size], labels[i : i + size], return_path=True).log_probs
            for i in range(0, 150, size)
        ]
        assert torch.equal(torch.cat(parts, 1), whole)
    order = draw(150).argsort()
    shuffled = plan(z[:, order], labels[order], return_path=True).log_probs
    assert torch.equal(shuffled, whole[:, order])


@pytest.mark.usefixtures("isa")
def test_threads_do_not_change_a_score(draw: Draw, set_threads: Callable[[int], None]) -> None:
    z, labels = draw(4, 300, 31), torch.arange(300) % 12
    plan = PrototypePlan(draw(12, 31), backend="native")
    set_threads(1)
    one = plan(z, labels).lc
    set_threads(3)
    assert torch.equal(plan(z, labels).lc, one)
    with ThreadPoolExecutor(3) as pool:
        for shared in pool.map(lambda _: plan(z, labels).lc, range(6)):
            assert torch.equal(shared, one)


def test_non_contiguous_input(draw: Draw, backend: str) -> None:
    z, mu, labels = draw(2, 15, 9), draw(4, 9), torch.arange(15) % 4
    ours = prototype_confidence(
        z.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        mu.T.contiguous().T,
        labels.repeat_interleave(2)[::2],
        backend=backend,
    )
    assert torch.equal(ours.lc, prototype_confidence(z, mu, labels, backend=backend).lc)


@pytest.mark.parametrize("logit", LOGITS)
def test_nan_stays_in_its_row(draw: Draw, backend: str, logit: str) -> None:
    z, mu = draw(2, 70, 9), draw(40, 9)
    plan = PrototypePlan(mu, logit=logit, backend=backend)
    clean = plan(z, None).lc
    z[1, 4, 2] = float("nan")
    ours = plan(z, None).lc
    assert bool(ours[4].isnan())
    rest = torch.arange(70) != 4
    torch.testing.assert_close(ours[rest], clean[rest])


def test_empty_batch(draw: Draw, backend: str) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    scores = prototype_confidence(
        draw(2, 0, 4), draw(3, 4), none, return_path=True, backend=backend
    )
    assert (scores.lc.shape, scores.loss.shape, scores.log_probs.shape) == ((0,), (0,), (2, 0))


def test_plan_keeps_its_own_copy(draw: Draw, backend: str) -> None:
    z, mu = draw(2, 8, 10), draw(4, 10)
    plan = PrototypePlan(mu, backend=backend)
    before = plan(z)
    mu.zero_()
    assert torch.equal(plan(z).lc, before.lc)
    assert before.log_probs is None


def test_opcheck(draw: Draw) -> None:
    arguments = (draw(2, 6, 5), draw(4, 5), torch.arange(6) % 4, "cosine", 0.5, None)
    operator = torch.ops.lc_engine.prototype_confidence.default
    for path in (True, False):
        torch.library.opcheck(operator, (*arguments, path, "auto"))


def test_compiled_gives_the_same_numbers(draw: Draw) -> None:
    z, mu, labels = draw(2, 6, 5), draw(4, 5), torch.arange(6) % 4

    def score(features: Tensor) -> Tensor:
        return prototype_confidence(features * 2, mu, labels).lc + 1

    compiled = torch.compile(score, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(z), score(z))


Z, M, Y = torch.ones(2, 4, 3), torch.ones(5, 3), torch.tensor([0, 1, 0, 4])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.ones(4, 3)}, r"features must have shape \(K, N, 3\), got \(4, 3\)"),
        ({"features": torch.ones(2, 4, 2)}, r"features must have shape \(K, N, 3\)"),
        ({"features": torch.ones(0, 4, 3)}, "at least one sub-model"),
        ({"features": Z.double()}, "features is float64 but prototypes is torch.float32"),
        ({"prototypes": torch.ones(3)}, r"prototypes must have shape \(C, D\)"),
        ({"prototypes": torch.ones(0, 3), "labels": None}, "at least one class"),
        ({"labels": torch.tensor([0, 1, 5, 0])}, r"labels\[2\] is 5, but must lie in \[0, 5\)"),
        ({"labels": Y[:3]}, r"labels must have shape \(4,\)"),
        ({"labels": Y.float()}, "labels must be an integer tensor"),
        ({"logit": "euclidean"}, "logit must be one of"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"path_weights": torch.ones(3)}, r"path_weights must have shape \(2\)"),
        ({"backend": "gpu"}, "backend must be one of"),
    ],
)
def test_bad_arguments(changed: dict[str, object], message: str) -> None:
    arguments = {"features": Z, "prototypes": M, "labels": Y}
    with pytest.raises(ValueError, match=message):
        prototype_confidence(**{**arguments, **changed})
