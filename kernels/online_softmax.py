"""Online softmax over tiles of classes (Milakov & Gimelshein, arXiv 1805.02867).

The state of a row and sub-model is (m, s, z): the largest logit so far, Σ exp(logit − m), and the
logit of the label, all float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def update(m, s, z, logits, is_label, HAS_LABELS: tl.constexpr):
    """Update the state (rows[, K]) with a tile of `logits` (rows, classes[, K]), over axis 1.

    Logits of padding classes are −∞. `is_label` broadcasts to the shape of the logits; without
    labels z does not change.
    """
    larger = tl.maximum(m, tl.max(logits, axis=1))
    # Where all logits are −∞ the state stays: −∞ − (−∞) would be NaN.
    base = tl.where(larger == -float("inf"), 0.0, larger)
    s = s * tl.exp(m - base) + tl.sum(tl.exp(logits - tl.expand_dims(base, 1)), axis=1)
    if HAS_LABELS:
        z += tl.sum(tl.where(is_label, logits, 0.0), axis=1)
    return larger, s, z


@triton.jit
def finish(m, s, z, HAS_LABELS: tl.constexpr):
    """Return (log p, p) of the label, or of the most probable class where there are no labels.

    p is a correctly rounded quotient, so that C equal logits give exactly 1/C.
    """
    lead = z - m if HAS_LABELS else m - m
    return lead - tl.log(s), tl.div_rn(tl.exp(lead), s)
