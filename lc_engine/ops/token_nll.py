"""token_nll: language-model head, log-softmax at the target, for all K sub-models.

    logits_k = h_k · (W ⊙ [s ≥ t_k])ᵀ + b      nll_k = −log softmax(logits_k)[target]

No tensor of tokens x vocabulary exists at any time: logits come tile by tile into an online
log-sum-exp (Milakov & Gimelshein, arXiv 1805.02867), and with them Σ p · logit, which gives the
entropy of the prediction. The scores of arXiv 2402.05356, section 3, are means of these numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import torch
from torch import Tensor

from lc_engine.ops import arrays, checks, choices, contract
from lc_engine.ops import saliency as scores
from lc_engine.ops.custom_op import register_shapes
from lc_engine.ops.softmax_tiles import SoftmaxTiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.ops.contract import Backend
    from lc_engine.ops.saliency import Saliency

# Numbers in a tile of logits and in a tile of weights of the reference: 8 and 4 MB as float32.
_TILE_LOGITS = 1 << 21
_TILE_WEIGHTS = 1 << 20
# Tokens from which on the native form gains by packing float32 weights, measured on one thread.
_FEW_TOKENS = 8


class TokenScores(NamedTuple):
    """Scores of T tokens under K sub-models, in nats.

    Attributes:
        nll: (K, T) −log p of the target. High = hard.
        entropy: (K, T) −Σ p log p of the predicted distribution. High = undecided.
    """

    nll: Tensor
    entropy: Tensor


@overload
def token_nll(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = ...,
    thresholds: Tensor | Sequence[float] | None = ...,
    saliency: Saliency = ...,
    return_entropy: Literal[False] = ...,
    backend: Backend = ...,
    checked: bool = ...,
) -> Tensor: ...
@overload
def token_nll(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = ...,
    thresholds: Tensor | Sequence[float] | None = ...,
    saliency: Saliency = ...,
    return_entropy: Literal[True],
    backend: Backend = ...,
    checked: bool = ...,
) -> TokenScores: ...
def token_nll(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    thresholds: Tensor | Sequence[float] | None = None,
    saliency: Saliency = None,
    return_entropy: bool = False,
    backend: Backend = "auto",
    checked: bool = False,
) -> Tensor | TokenScores:
    """Score T target tokens under K sub-models without a logits tensor.

    Args:
        hidden: (K, T, D) last hidden states of the positions that count, float32, bfloat16,
            float16 or float64 (reference only).
        vocab_weight: (V, D) of the head, in the dtype of `hidden`.
        targets: (T,) integers in [0, V): the token that each position is to predict.
        bias: (V,) or None; never masked.
        thresholds: (K,) ascending where the head is masked too: weight w with saliency s lives in
            sub-model k while s ≥ t_k. None leaves the head whole.
        saliency: None for |w|, a tensor (V, D), or ("random", seed) for numbers drawn by Philox
            (the reference holds V·D of them while the call runs).
        return_entropy: whether to return the entropy of each prediction too.
        backend: "auto" is Triton on a GPU and native on a CPU, except that few tokens in float32
            against a whole head are plain torch's, "reference", and that bfloat16 on a CPU with AMX
            is multiplied by torch.
        checked: whether the caller knows that targets lie in [0, V). Those on a GPU are not read
            back then, which would wait for all that was launched before.

    Returns:
        The negative log-likelihood (K, T) in nats, float32 (float64 for float64); with
        `return_entropy`, TokenScores(nll, entropy).

    Raises:
        ValueError: naming the argument that does not fit, or the first target out of range.
    """
    tensor, seed = scores.split(saliency)
    checks.check_kinds(hidden=hidden, vocab_weight=vocab_weight, targets=targets, bias=bias)
    if thresholds is not None:
        thresholds = checks.as_numbers("thresholds", thresholds)
    nll, entropy = torch.ops.lc_engine.token_nll(
        hidden,
        vocab_weight,
        targets,
        bias,
        thresholds,
        tensor,
        seed,
        return_entropy,
        backend,
        checked,
    )
    return TokenScores(nll, entropy) if return_entropy else nll


def _check(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    thresholds: Tensor | None,
    saliency: Tensor | None,
    seed: int | None,
    checked: bool,
) -> Tensor | None:
    """Check the arguments; return the thresholds on the host, in the dtype of the saliencies."""
    checks.check_tensor("vocab_weight", vocab_weight, ("V", "D"))
    vocabulary, depth = vocab_weight.shape
    if vocabulary < 1:
        raise ValueError("vocab_weight must have at least one row, got V = 0")
    checks.check_tensor("hidden", hidden, ("K", "T", depth), like=vocab_weight)
    if vocab_weight.dtype != hidden.dtype:
        raise ValueError(
            f"vocab_weight is {vocab_weight.dtype} but hidden is {hidden.dtype}: "
            "give both in one dtype"
        )
    if bias is not None:
        checks.check_tensor("bias", bias, (vocabulary,), like=vocab_weight)
    _check_targets(targets, hidden.shape[1], vocabulary, hidden.device, checked)
    if thresholds is None:
        if saliency is not None or seed is not None:
            raise ValueError("saliency is given without thresholds: a whole head has no use for it")
        return None
    if saliency is not None:
        checks.check_tensor("saliency", saliency, (vocabulary, depth), like=vocab_weight)
    checks.check_tensor("thresholds", thresholds, (hidden.shape[0],))
    return checks.check_thresholds("thresholds", thresholds, contract.compute_dtype(hidden.dtype))


def _check_targets(
    targets: Tensor, tokens: int, vocabulary: int, device: torch.device, checked: bool
) -> None:
    if not isinstance(targets, torch.Tensor) or tuple(targets.shape) != (tokens,):
        got = tuple(targets.shape) if isinstance(targets, torch.Tensor) else type(targets).__name__
        raise ValueError(f"targets must have shape ({tokens},), one per token of hidden, got {got}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be an integer tensor, got {targets.dtype}")
    if targets.device != device:
        raise ValueError(f"targets is on {targets.device}, but must be on {device}")
    if checked:
        return
    wide = targets.to(torch.int64)  # torch does not compare unsigned integers of more than 8 bits
    outside = (wide < 0) | (wide >= vocabulary)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"targets[{row}] is {targets[row].cpu().numpy()}, but must lie in [0, {vocabulary}): "
            "pass only the positions that count"
        )


def _choose(backend: str, hidden: Tensor, masked: bool) -> str:
    """Choose the implementation that runs; see `_torch_is_faster` for "auto" on a CPU."""
    if (
        backend == "auto"
        and hidden.device.type == "cpu"
        and _torch_is_faster(hidden.dtype, hidden.shape[1], masked)
    ):
        return "reference"
    return contract.resolve_backend(
        "token_nll",
        backend,  # type: ignore[arg-type]
        hidden.device,
        hidden.dtype,
    )


def _torch_is_faster(dtype: torch.dtype, tokens: int, masked: bool) -> bool:
    """Return whether plain torch beats the native form on a CPU.

    With few float32 tokens the work is to read the weights once: torch multiplies them in place,
    the native form packs them first. In bfloat16 torch multiplies twice; masks make it copy them.
    """
    return dtype == torch.float32 and tokens < _FEW_TOKENS and not masked


class _Running:
    """The online softmax of some rows: m, Σ e^(l−m), Σ (l−m) e^(l−m) over the logits so far."""

    def __init__(self, rows: int, like: Tensor, dtype: torch.dtype, entropy: bool) -> None:
        self.largest = like.new_full((rows,), -torch.inf, dtype=dtype)
        self.total = like.new_zeros((rows,), dtype=dtype)
        self.moment = like.new_zeros((rows,), dtype=dtype) if entropy else None
        self.chosen = like.new_zeros((rows,), dtype=dtype)

    def take_in(self, rows: slice, logits: Tensor, first: int, targets: Tensor) -> None:
        """Take in logits (rows, …) of the vocabulary from `first` on; they are overwritten."""
        count = logits.shape[1]
        local = targets - first
        inside = (local >= 0) & (local < count)
        found = logits.gather(1, local.clamp(0, count - 1).unsqueeze(1)).squeeze(1)
        self.chosen[rows] = torch.where(inside, found, self.chosen[rows])
        before = self.largest[rows]
        largest = torch.maximum(before, logits.amax(1))
        # A row of −∞ alone keeps its state: −∞ − (−∞) must not appear.
        base = torch.where(largest == -torch.inf, 0, largest)
        logits -= base.unsqueeze(1)
        change = torch.where(before == -torch.inf, 0, before - base)
        weights = logits.exp()
        if self.moment is not None:
            carried = change.exp() * (self.moment[rows] + change * self.total[rows])
            # 0 · ∞ must not appear where an entry has no probability.
            self.moment[rows] = carried + (weights * logits.clamp_(min=-1e30)).sum(1)
        self.total[rows] = self.total[rows] * change.exp() + weights.sum(1)
        self.largest[rows] = largest

    def close(self) -> tuple[Tensor, Tensor | None]:
        """Return the NLL and the entropy of every row."""
        log_total = self.total.log()
        nll = log_total - (self.chosen - self.largest)
        return nll, None if self.moment is None else log_total - self.moment / self.total


def _in_torch(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    thresholds: Tensor | None,
    saliency: Tensor | None,
    running: _Running | SoftmaxTiles,
) -> tuple[Tensor, Tensor | None]:
    """Score by torch's products, a tile of logits at a time; the constants say how much it takes.

    `running` is the online softmax: torch's own, or the core's of bfloat16 logits.
    """
    sub_models, tokens, depth = hidden.shape
    dtype = contract.compute_dtype(hidden.dtype)
    columns = max(1, _TILE_WEIGHTS // max(1, depth))
    rows = max(1, _TILE_LOGITS // columns)
    targets = targets.to(torch.int64).contiguous()
    for first in range(0, vocab_weight.shape[0], columns):
        part = slice(first, first + columns)
        weight = vocab_weight[part]
        shift = None if bias is None else bias[part].to(dtype)
        for k in range(sub_models):
            masked = weight
            if thresholds is not None:
                score = None if saliency is None else saliency[part]
                masked = scores.keep(weight.to(dtype), score, thresholds[k].to(weight.device))
                masked = masked.to(hidden.dtype)  # it came from there, so nothing is rounded
            for start in range(0, tokens, rows):
                stop = min(tokens, start + rows)
                where = slice(k * tokens + start, k * tokens + stop)
                inputs, labels = hidden[k, start:stop], targets[start:stop]
                if isinstance(running, SoftmaxTiles):
                    logits, lost = _rounded(inputs, masked)
                    running.take_in(
                        logits, rows=where, lost=lost, bias=shift, labels=labels, first=first
                    )
                else:
                    running.take_in(where, _logits(inputs, masked, shift), first, labels)
    nll, entropy = running.close()
    shape = (sub_models, tokens)
    return nll.view(shape), None if entropy is None else entropy.view(shape)


def _rounded(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply bfloat16 (T, D) by (V, D): the logits (T, V) rounded, and what that lost.

    torch rounds a product of bfloat16 matrices to bfloat16. Subtracting the rounded product inside
    a second one gives what was lost, and both are still faster than float32.
    """
    rounded = hidden @ weight.T
    return rounded, torch.addmm(rounded, hidden, weight.T, beta=-1)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply (T, D) by (V, D), accumulated in float32 (float64): (T, V)."""
    dtype = contract.compute_dtype(hidden.dtype)
    if hidden.dtype != torch.bfloat16:
        return torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), bias)
    rounded, lost = _rounded(hidden, weight)
    logits = rounded.to(dtype).add_(lost)
    return logits if bias is None else logits.add_(bias)


@torch.library.custom_op("lc_engine::token_nll", mutates_args=())
def _operator(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    thresholds: Tensor | None,
    saliency: Tensor | None,
    seed: int | None,
    return_entropy: bool,
    backend: str,
    checked: bool = False,
) -> tuple[Tensor, Tensor]:
    bounds = _check(hidden, vocab_weight, targets, bias, thresholds, saliency, seed, checked)
    on_tiles = choices.multiplies_on_tiles(hidden.dtype, hidden.device, backend)
    chosen = "reference" if on_tiles else _choose(backend, hidden, masked=thresholds is not None)
    if chosen != "reference":
        run = _triton if chosen == "triton" else _native
        nll, entropy = run(
            hidden, vocab_weight, targets, bias, bounds, saliency, seed, return_entropy
        )
    else:
        score = scores.drawn(vocab_weight, saliency, seed)
        rows, dtype = hidden.shape[0] * hidden.shape[1], contract.compute_dtype(hidden.dtype)
        nll, entropy = _in_torch(
            hidden,
            vocab_weight,
            targets,
            bias,
            bounds,
            score,
            SoftmaxTiles(rows, entropy=return_entropy)
            if on_tiles
            else _Running(rows, hidden, dtype, return_entropy),
        )
    # A custom op's result may not be None: an entropy that was not asked for is an empty tensor.
    return nll, nll.new_empty((0, 0)) if entropy is None else entropy


def _native(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    thresholds: Tensor | None,
    saliency: Tensor | None,
    seed: int | None,
    return_entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """Score in C++, which draws random saliencies itself, block by block."""
    nll = hidden.new_empty(hidden.shape[:2], dtype=torch.float32)
    entropy = torch.empty_like(nll) if return_entropy else None
    contract.native().token_nll(
        arrays.host_array(scores.shared(hidden)),
        arrays.host_array(vocab_weight),
        arrays.host_floats(bias),
        arrays.host_array(targets.to(torch.int64)),
        arrays.host_floats(thresholds),
        arrays.host_floats(saliency),
        None if seed is None else seed & scores.SEED_BITS,
        nll.numpy(),
        None if entropy is None else entropy.numpy(),
        torch.get_num_threads(),
    )
    return nll, entropy


def _triton(
    hidden: Tensor,
    vocab_weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    thresholds: Tensor | None,
    saliency: Tensor | None,
    seed: int | None,
    return_entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """Score all sub-models in one launch."""
    from lc_engine.kernels import config, token_nll
    from lc_engine.kernels.bias import padded_bias
    from lc_engine.kernels.dtypes import compute_dtype
    from lc_engine.kernels.saliency import WHOLE, signed, source_of
    from lc_engine.kernels.targets import target_of

    weight = vocab_weight.contiguous()
    tile = config.vocabulary(
        target_of(hidden.device),
        hidden.element_size(),
        scored=saliency is not None or seed is not None,
        entropy=return_entropy,
    )
    nll = hidden.new_empty(hidden.shape[:2], dtype=torch.float32)
    entropy = torch.empty_like(nll) if return_entropy else None
    token_nll.token_nll(
        scores.shared(hidden),
        weight,
        padded_bias(bias, weight, len(weight), tile.classes, -torch.inf),
        None if saliency is None else saliency.to(torch.float32).contiguous(),
        None if thresholds is None else thresholds.to(hidden.device, torch.float32),
        targets.to(torch.int64).contiguous(),
        nll,
        entropy,
        source=WHOLE.value if thresholds is None else source_of(saliency, seed),
        seed=signed(seed or 0),
        compute=compute_dtype(hidden, weight),
        tile=tile,
    )
    return nll, entropy


def _shapes(hidden: Tensor, return_entropy: bool) -> tuple[Tensor, Tensor]:
    shape = tuple(hidden.shape[:2])
    dtype = contract.compute_dtype(hidden.dtype)
    return (
        hidden.new_empty(shape, dtype=dtype),
        hidden.new_empty(shape if return_entropy else (0, 0), dtype=dtype),
    )


register_shapes("token_nll", _shapes)
