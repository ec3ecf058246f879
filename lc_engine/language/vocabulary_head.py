"""The vocabulary head: from last hidden states to the log-likelihood of response tokens."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lc_engine import ops
from lc_engine.ops.contract import FallbackWarning

if TYPE_CHECKING:
    from lc_engine.submodels import HeadMask

# Logits held at a time where the model computes them itself.
_MAX_LOGITS: Final = 1 << 24
_PROBE_TOKENS: Final = 8


class TokenScores(NamedTuple):
    """Scores (R,) of response tokens, float32 in nats; the entropy if it was asked for."""

    nll: Tensor
    entropy: Tensor | None


class VocabularyHead:
    """The head of a causal language model, run only where a response token is predicted.

    If the logits are a linear map of the last hidden states, `ops.token_nll` computes it without a
    tensor of tokens x vocabulary. A model that does more (soft capping, a scale) computes its own
    logits, a few hundred positions at a time, with one warning that names it.

    Args:
        model: a causal language model, in evaluation mode.

    Attributes:
        name: of the head module.
        linear: whether the logits are its linear map.

    Raises:
        ValueError: the model has no vocabulary head.
    """

    def __init__(self, model: nn.Module) -> None:
        whole: Any = model
        module: Any = whole.get_output_embeddings() if _is_causal(model) else None
        names = [name for name, part in model.named_modules() if part is module]
        if module is None or not names or not isinstance(getattr(module, "weight", None), Tensor):
            raise ValueError(
                f"{type(model).__name__} has no vocabulary head: pass a causal language model of "
                "transformers (AutoModelForCausalLM)"
            )
        self.model = model
        self.module = module
        self.name = names[0]
        self.decoder: nn.Module = whole.get_decoder()
        self.linear = self._is_linear()
        if not self.linear:
            warnings.warn(
                f"{type(model).__name__} does more with its vocabulary head than a linear map: "
                "its logits are computed by the model itself, which takes more memory",
                FallbackWarning,
                stacklevel=2,
            )

    def _is_linear(self) -> bool:
        """Return whether the model's logits of a few tokens are those of the linear map."""
        weight = self.module.weight
        few = torch.arange(_PROBE_TOKENS, device=weight.device) % weight.shape[0]
        with torch.inference_mode():
            own = self.model(input_ids=few[None].clone(), use_cache=False).logits[0].float()
            hidden = self.decoder(input_ids=few[None].clone(), use_cache=False)[0][0]
            if hidden.shape[-1] != weight.shape[-1]:
                return False
            mapped = F.linear(hidden, weight, getattr(self.module, "bias", None)).float()
        tolerance = torch.finfo(weight.dtype).eps * 16 * own.abs().max().clamp_min(1.0)
        return bool((own - mapped).abs().max() <= tolerance)

    def score(
        self,
        hidden: Tensor,
        targets: Tensor,
        mask: HeadMask | None,
        entropy: bool,
    ) -> TokenScores:
        """Score response tokens under the head of a sub-model.

        Args:
            hidden: (R, D) last hidden states of the positions before them.
            targets: (R,) the tokens, which the head has.
            mask: of the head, K = 1; None leaves it whole.
            entropy: whether to return the entropy of the predictions.
        """
        options: dict[str, Any] = {"bias": getattr(self.module, "bias", None), "checked": True}
        if mask is not None:
            options |= {"thresholds": mask.thresholds, "saliency": mask.saliency}
        weight = self.module.weight.detach()
        hidden = hidden.unsqueeze(0)
        if entropy:
            scored = ops.token_nll(hidden, weight, targets, return_entropy=True, **options)
            return TokenScores(scored.nll[0], scored.entropy[0])
        return TokenScores(ops.token_nll(hidden, weight, targets, **options)[0], None)

    def score_logits(
        self, inputs: dict[str, Any], positions: Tensor, targets: Tensor, entropy: bool
    ) -> tuple[TokenScores, Tensor]:
        """Score response tokens with logits that the model computes itself.

        The head sees only the wanted positions; whatever the model does to its output follows.
        Returns the hidden states (R, D) of these positions too.

        Args:
            inputs: of the model's forward, (B, T) tokens.
            positions: (R,) indices into the B·T tokens.
            targets: (R,) the tokens to be predicted from them.
            entropy: whether to return the entropy of the predictions.
        """
        wanted: list[Tensor] = []

        def select(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            wanted.append(args[0].flatten(0, -2)[positions])
            return (wanted[0].unsqueeze(0), *args[1:])

        handle = self.module.register_forward_pre_hook(select)
        try:
            logits = self.model(**inputs).logits[0].float()
        finally:
            handle.remove()
        log_probs = torch.log_softmax(logits, dim=-1)
        nll = -log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)
        means = -(log_probs.exp() * log_probs).sum(1) if entropy else None
        return TokenScores(nll, means), wanted[0]

    def token_limit(self, tokens: int) -> int:
        """Return how many tokens may go through the model at a time, at most `tokens`."""
        return tokens if self.linear else min(tokens, _MAX_LOGITS // self.module.weight.shape[0])


def _is_causal(model: Any) -> bool:
    return isinstance(model, nn.Module) and all(
        callable(getattr(model, name, None)) for name in ("get_output_embeddings", "get_decoder")
    )
