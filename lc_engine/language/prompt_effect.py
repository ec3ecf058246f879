"""What the prompt changes about the response: instruction-following difficulty, in three forms.

NLL_t is the negative log-likelihood of response token t under the whole model, given the prompt and
the response before it; NLL⁰_t is the same without the prompt; means are over the T response tokens:

    ifd        = mean NLL / mean NLL⁰               IFD of Li et al., arXiv 2308.12032, equation 3
    ifd_ppl    = exp(mean NLL) / exp(mean NLL⁰)     IFD of Superfiltering, arXiv 2402.00530
    mean_delta = mean of Δ_t = NLL_t − NLL⁰_t over the ⌈T/2⌉ tokens of largest |Δ_t|

Over all tokens, exp(mean Δ_t) is `ifd_ppl`. exp(mean_delta) is S-IFD of T-SHIRT (arXiv 2506.01317)
at half of the tokens, but for one thing: there those tokens count whose |Δ_t| exceeds a percentile
of the whole data set, here those of each row, so that a row's score does not depend on other rows.
All three are high where the prompt helps little: high = hard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.language.forward import Means, PackedRows

PROMPT_EFFECT: Final = ("ifd", "ifd_ppl", "mean_delta")


def prompt_effect(prompted: Means, alone: Means, rows: PackedRows) -> dict[str, Tensor]:
    """Return `ifd`, `ifd_ppl` and `mean_delta` of M rows, each (M,) float64.

    Args:
        prompted: of the responses given their prompts, with the NLL of every token.
        alone: of the same responses without them, likewise.
        rows: the M rows.
    """
    assert prompted.token_nll is not None
    assert alone.token_nll is not None
    each = rows.counts.long().tolist()
    deltas = torch.split(prompted.token_nll - alone.token_nll, each)
    return {
        "ifd": prompted.nll / alone.nll,
        "ifd_ppl": (prompted.nll - alone.nll).exp(),
        "mean_delta": torch.stack([_mean_of_largest_half(delta) for delta in deltas])
        if deltas
        else torch.zeros(0, dtype=torch.float64),
    }


def _mean_of_largest_half(delta: Tensor) -> Tensor:
    largest = delta.abs().topk((len(delta) + 1) // 2).indices
    return delta[largest].mean()
