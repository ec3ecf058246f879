"""Causal attention over rows of several lengths that lie one after the other, without padding."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from lc_engine._util.extras import require
from lc_engine._util.transfer import upload
from lc_engine.models.state import evaluating
from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from lc_engine.language.prefix_cache import PrefixCache

# Under which `transformers` finds it.
_NAME: Final = "lc_engine_packed"
# What a model may ask of attention that is not done here.
_REFUSED: Final = ("softcap", "position_bias", "s_aux", "sliding_window")
# torch has kernels for these.
DTYPES: Final = (torch.bfloat16, torch.float16)
# Of the largest hidden state, how far it may be from that of a row alone, in units of ε.
_UNITS: Final = 16
# Tokens of rows: beyond 128 torch may take another kernel, which must align causal order alike.
_PROBED: Final = [5, 2, 150]


class Spans(NamedTuple):
    """Where the rows of a batch lie, B of them with T tokens together, after a prefix of P.

    Attributes:
        lengths: B numbers of tokens.
        prefix: P.
        positions: (1, T) int64 of each token in its row, the prefix counted.
        starts: (B + 1,) int32 where the tokens of each row begin, and T.
        key_starts: likewise of its keys, which are those of the prefix and its own.
        keys: (B·P + T,) int64 where these lie among P + T; None if P is 0.
    """

    lengths: tuple[int, ...]
    prefix: int
    positions: Tensor
    starts: Tensor
    key_starts: Tensor
    keys: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], prefix: int, device: torch.device) -> Spans:
        """Return the spans of rows of these lengths."""
        own = np.asarray(lengths, dtype=np.int64)
        ends = own.cumsum()
        positions = np.arange(ends[-1]) - np.repeat(ends - own, own) + prefix
        shared = np.arange(prefix)
        keys = [
            np.concatenate([shared, prefix + np.arange(end - length, end)])
            for length, end in zip(own, ends, strict=True)
        ]
        starts = np.concatenate([[0], ends]).astype(np.int32)
        key_starts = np.concatenate([[0], (own + prefix).cumsum()]).astype(np.int32)
        arrays = (positions[None], starts, key_starts)
        there = [upload(torch.from_numpy(array), device) for array in arrays]
        gathered = upload(torch.from_numpy(np.concatenate(keys)), device) if prefix else None
        return cls(tuple(own.tolist()), prefix, there[0], there[1], there[2], gathered)


_current: ContextVar[Spans] = ContextVar("spans")


class PackedAttention:
    """Runs a decoder over packed rows, if its attention is causal and plain.

    Args:
        decoder: of a causal language model of `transformers`, on its device.
        prefix_cache: of the decoder.

    Attributes:
        supported: whether packed rows have the hidden states that each has alone. Where they do
            not, a warning names the model.
    """

    def __init__(self, decoder: nn.Module, prefix_cache: PrefixCache) -> None:
        self._decoder = decoder
        self._prefix_cache = prefix_cache
        modeling = require("transformers.modeling_utils", "language")
        masking = require("transformers.masking_utils", "language")
        modeling.AttentionInterface.register(_NAME, _attend)
        masking.AttentionMaskInterface.register(_NAME, _without_mask)
        self.supported = False
        if not prefix_cache.supported:
            return
        try:
            self.supported, reason = self._is_right(), "its hidden states differ"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the model's own code
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if not self.supported:
            contract.warn_once(
                f"lc_engine: {type(decoder).__name__} cannot run rows without padding "
                f"({reason:.200}), so they are padded."
            )

    @contextmanager
    def over(self, spans: Spans) -> Iterator[None]:
        """Let the decoder's attention keep to the rows of a batch."""
        config: Any = self._decoder.config
        before, token = config._attn_implementation, _current.set(spans)
        try:
            config._attn_implementation = _NAME
            yield
        finally:
            config._attn_implementation = before
            _current.reset(token)

    def _is_right(self) -> bool:
        """Compare rows that are packed with each alone, with and without a shared prefix."""
        weight = next(self._decoder.parameters())
        embedding: Any = self._decoder.get_input_embeddings()  # type: ignore[operator]
        ids = torch.arange(1 + sum(_PROBED), device=weight.device) * 7 % len(embedding.weight)
        rows = torch.split(ids[1:], _PROBED)
        with evaluating(self._decoder), torch.inference_mode():
            for prefix in (ids[:0], ids[:3]):
                spans = Spans.of(_PROBED, len(prefix), weight.device)
                inputs: dict[str, Any] = {"input_ids": ids[1:].unsqueeze(0)}
                inputs["position_ids"] = spans.positions
                if len(prefix):
                    cache = self._prefix_cache.compute(prefix.unsqueeze(0))
                    inputs |= self._prefix_cache.for_rows(cache, 1)
                else:
                    inputs["use_cache"] = False
                with self.over(spans):
                    found = self._decoder(**inputs)[0][0]
                alone = [
                    self._decoder(input_ids=torch.cat([prefix, row])[None], use_cache=False)[0][0]
                    for row in rows
                ]
                expected = torch.cat([one[len(prefix) :] for one in alone])
                bound = _UNITS * torch.finfo(weight.dtype).eps * expected.abs().max()
                if not bool((found - expected).abs().max() <= bound):
                    return False
        return True


def _without_mask(**_: Any) -> None:
    """Return no mask: `_attend` knows where rows end."""


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as `transformers` asks for it; see there.

    Args:
        module: the attention module.
        query: (1, H, T, D) of the packed rows.
        key: (1, G, P + T, D), H a multiple of G.
        value: likewise.
        attention_mask: None.
        scaling: of the scores; None for 1/√D.
        dropout: 0.
        is_causal: None or True.
        **options: of which none of `_REFUSED` may be set.

    Returns:
        (1, T, H, D).
    """
    asked = [name for name in _REFUSED if options.get(name) is not None]
    if attention_mask is not None or dropout or is_causal is False or asked:
        raise ValueError(f"attention with {', '.join(asked) or 'a mask or dropout'}")
    spans = _current.get()
    heads = [part[0].transpose(0, 1) for part in (query, key, value)]
    if spans.keys is not None:
        heads[1:] = [part[spans.keys] for part in heads[1:]]
    run = _on_gpu if query.is_cuda else _one_by_one
    return run(heads[0], heads[1], heads[2], spans, scaling).unsqueeze(0), None


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float | None
) -> Tensor:
    """Attend in one launch: (T, H, D), (B·P + T, G, D) -> (T, H, D)."""
    from torch.nn.attention.varlen import varlen_attn

    # Arguments that later versions of torch have: grouped heads, and sums in the same order
    # whatever else is in the batch.
    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"num_splits": 1} if "num_splits" in known else {}
    if key.shape[1] != query.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            groups = query.shape[1] // key.shape[1]
            key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    causal = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    longest = max(spans.lengths)
    found: Any = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        spans.starts,
        spans.key_starts,
        longest,
        longest + spans.prefix,
        scale=scaling,
        **causal,
        **options,
    )
    assert isinstance(found, torch.Tensor)  # without the sums beside it
    return found


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float | None
) -> Tensor:
    """Attend row by row, where there is no kernel: a reference."""
    found, start, first = [], 0, 0
    for length in spans.lengths:
        keys = length + spans.prefix
        own = query[start : start + length].transpose(0, 1)
        others = [part[first : first + keys].transpose(0, 1) for part in (key, value)]
        seen = torch.ones(length, keys, dtype=torch.bool, device=query.device)
        seen = seen.tril(spans.prefix)
        found.append(
            F.scaled_dot_product_attention(
                own[None],
                others[0][None],
                others[1][None],
                attn_mask=seen,
                scale=scaling,
                enable_gqa=key.shape[1] != query.shape[1],
            )[0].transpose(0, 1)
        )
        start, first = start + length, first + keys
    return torch.cat(found)


def is_packed_there(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch attends over packed rows in one launch there."""
    return device.type == "cuda" and dtype in DTYPES
