"""The vocabulary head: from the last hidden states to the log-likelihood of the response tokens."""

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

# Logits that are held at a time where a model computes its own.
_OWN_LOGITS: Final = 1 << 24
_PROBE_TOKENS: Final = 8


class Scored(NamedTuple):
    """Scores (R,) of response tokens, float32 in nats; entropy where it was asked for."""

    nll: Tensor
    entropy: Tensor | None


class VocabularyHead:
    """The head of a causal language model, run at response positions only.

    Where the model's logits are a linear map of its last hidden states, `ops.token_nll` takes
    that map, and no tensor of tokens x vocabulary exists. A model that does more (soft capping, a
    scale) computes its own logits, some hundred positions at a time; this is said once, by name.

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
                f"{type(model).__name__} has no vocabulary head: give a causal language model of "
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
        """Compare the model's own logits of a few tokens with the linear map."""
        weight = self.module.weight
        few = torch.arange(_PROBE_TOKENS, device=weight.device) % weight.shape[0]
        with torch.inference_mode():
            own = self.model(input_ids=few[None], use_cache=False).logits[0].float()
            hidden = self.decoder(input_ids=few[None], use_cache=False)[0][0]
            if hidden.shape[-1] != weight.shape[-1]:
                return False
            mapped = F.linear(hidden, weight, getattr(self.module, "bias", None)).float()
        coarse = torch.finfo(weight.dtype).eps * 16
        return bool((own - mapped).abs().max() <= coarse * own.abs().max().clamp_min(1.0))

    def score(
        self,
        hidden: Tensor,
        targets: Tensor,
        mask: HeadMask | None,
        entropy: bool,
    ) -> Scored:
        """Score response tokens under the head of a sub-model.

        Args:
            hidden: (R, D) last hidden states of the positions before them.
            targets: (R,) the tokens.
            mask: of the head, K = 1; None leaves it whole.
            entropy: whether to give the entropy of the predictions.
        """
        options: dict[str, Any] = {"bias": getattr(self.module, "bias", None)}
        if mask is not None:
            options |= {"thresholds": mask.thresholds, "saliency": mask.saliency}
        weight = self.module.weight.detach()
        hidden = hidden.unsqueeze(0)
        if entropy:
            scored = ops.token_nll(hidden, weight, targets, return_entropy=True, **options)
            return Scored(scored.nll[0], scored.entropy[0])
        return Scored(ops.token_nll(hidden, weight, targets, **options)[0], None)

    def score_own(
        self, inputs: dict[str, Any], positions: Tensor, targets: Tensor, entropy: bool
    ) -> Scored:
        """Score response tokens by logits that the model computes itself.

        The head sees the wanted positions only; whatever the model does to its output follows.

        Args:
            inputs: of the model's forward, (B, T) tokens.
            positions: (R,) places in the B·T tokens.
            targets: (R,) the tokens to be predicted from them.
            entropy: whether to give the entropy of the predictions.
        """

        def choose(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0].flatten(0, -2)[positions].unsqueeze(0), *args[1:])

        handle = self.module.register_forward_pre_hook(choose)
        try:
            logits = self.model(**inputs).logits[0].float()
        finally:
            handle.remove()
        log_probs = torch.log_softmax(logits, dim=-1)
        nll = -log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)
        return Scored(nll, -(log_probs.exp() * log_probs).sum(1) if entropy else None)

    def budget(self, tokens: int) -> int:
        """Give how many tokens may go through the model at a time, of `tokens` that may else."""
        return tokens if self.linear else min(tokens, _OWN_LOGITS // self.module.weight.shape[0])


def _is_causal(model: Any) -> bool:
    return isinstance(model, nn.Module) and all(
        callable(getattr(model, name, None)) for name in ("get_output_embeddings", "get_decoder")
    )
