"""CausalLMScorer: how well the sub-models of a language model expect each response.

    NLL_k = −1/T Σ_t log p_k(response_t | prompt, response_<t)
    lc    = Σ ω_k exp(−NLL_k)        loss = Σ ω_k NLL_k

over the T response tokens and the K sub-models. exp(−NLL_k) is one over the perplexity, so `lc` is
the learning complexity of arXiv 2402.05356 v1, section 4 (language), and `loss` the form of its v2.
"""

from __future__ import annotations

import copy
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lc_engine._util.json_file import read_json_object
from lc_engine.data.batch import NON_FINITE, NON_FINITE_OUTPUT, OK, Batch
from lc_engine.data.features import of_batch
from lc_engine.data.protocols import RowScores
from lc_engine.data.row_scores import scatter
from lc_engine.data.wrap.mixture import parts_of
from lc_engine.language.encoder import Encoder
from lc_engine.language.families import family_of
from lc_engine.language.forward import Forward, Pooling
from lc_engine.language.images.encoder import ImageTextEncoder
from lc_engine.language.images.model import LanguageSide, reads_images
from lc_engine.language.model import LanguageModelSpec, window_of
from lc_engine.language.pairs import Pairs, beside, halved
from lc_engine.language.prompt_effect import PROMPT_EFFECT, prompt_effect
from lc_engine.language.source import InstructionSource
from lc_engine.language.tokens import Tokens
from lc_engine.language.tuning import LOWEST_CAPACITY
from lc_engine.language.vocabulary_head import VocabularyHead
from lc_engine.masking import Masking
from lc_engine.models.state import evaluating
from lc_engine.models.version import ModelVersion
from lc_engine.ops import PathScores
from lc_engine.path.learning_path import LearningPath, checked_path
from lc_engine.path.reduction import reduce_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import BatchProgress, FeatureSink, Progress
    from lc_engine.language.batching import Usage
    from lc_engine.language.encoder import Reasoning, Turns
    from lc_engine.language.forward import Means
    from lc_engine.masking import MaskAccount


class CausalLMScorer:
    """A causal language model, its sub-models and its tokenizer: scores conversations.

    The score table gets the columns `token_count` (response tokens that were scored) and, of the
    whole model, `perplexity` and `entropy` (of the predictions, mean over the response tokens, in
    nats); with `ifd`, also `ifd`, `ifd_ppl` and `mean_delta`, which compare the response given the
    prompt with the response alone (see `lc_engine.language.prompt_effect`). Of preference pairs
    these columns, lc, loss and lc_std are those of the chosen response; see
    `lc_engine.language.pairs.beside` for the rejected one's.

    Scoring restores the model bit for bit. Threads may share a scorer; they take turns. A scorer of
    a `LanguageModelSpec` (or its name) loads the model at the first use and pickles without it.

    Args:
        model: a causal language model of `transformers`, or one of images and text, on its device
            and in its dtype; a `LanguageModelSpec`; or the name of one.
        tokenizer: of a model that is passed as a module; of one of images and text its processor;
            a spec has its own.
        path: the capacities; default `LearningPath.gauss(8, 0.7, 1.0)`, and for dropout the rates
            10 % to 90 % of the paper.
        masking: default magnitude masks per layer, without the vocabulary head. With
            `weights="all"` the head is masked too, with "head" only the head; an embedding that is
            tied to it stays whole. Kind "dropout" drops outputs of the residual branches and
            ignores `weights` and `scope`.
        turns: "all" assistant turns count, or only the "last".
        max_tokens: longest row; longer ones are truncated. None takes the limit of the model.
        reasoning: whether the reasoning in an answer is to "score" where the template writes it, is
            only "context", or is to "drop" before the template sees it.
        chat_template: Jinja text in place of the tokenizer's own.
        template_kwargs: further variables of the chat template, such as {"enable_thinking": False};
            a row's own come before them.
        template_time: the moment that the template takes for now, a date or a time in ISO 8601.
            None takes that of the scorer's construction, or that at which a run was begun which is
            continued.
        whole_model: whether to add perplexity and entropy; costs a forward unless the path holds
            capacity 1.
        ifd: whether to add the instruction-following difficulty (`ifd`, `ifd_ppl`, `mean_delta`);
            costs a forward of the responses.
        token_budget: most tokens of a batch, padding included; None takes 1,024 on a CPU and
            16,384 on a GPU.
        pooling: of the features, over the response tokens: "mean", or "weighted_mean", in which the
            i-th of T weighs i / (1 + … + T), as in RDS+ (arXiv 2503.01807).

    Raises:
        ValueError: naming the invalid argument; errors that depend on the model are raised at the
            first use.
    """

    def __init__(
        self,
        model: nn.Module | LanguageModelSpec | str,
        tokenizer: Any = None,
        *,
        path: LearningPath | None = None,
        masking: Masking | None = None,
        turns: Turns = "all",
        max_tokens: int | None = None,
        reasoning: Reasoning = "score",
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        template_time: str | None = None,
        whole_model: bool = True,
        ifd: bool = False,
        token_budget: int | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        self.spec = LanguageModelSpec(model) if isinstance(model, str) else model
        if not isinstance(self.spec, LanguageModelSpec | nn.Module):
            raise ValueError(
                f"model must be a module, a LanguageModelSpec or a text, got {type(model).__name__}"
            )
        if isinstance(self.spec, nn.Module) == (tokenizer is None):
            raise ValueError(
                "tokenizer goes with a model that is passed as a module, and only with that"
            )
        if token_budget is not None and token_budget < 1:
            raise ValueError(f"token_budget must be at least 1, got {token_budget}")
        if pooling not in get_args(Pooling):
            raise ValueError(f'pooling must be "mean" or "weighted_mean", got {pooling!r}')
        self.masking = Masking("magnitude", scope="layer") if masking is None else masking
        self.path = _default_path(self.masking) if path is None else checked_path(path)
        self.turns: Turns = turns
        self.max_tokens = max_tokens
        self.reasoning: Reasoning = reasoning
        self.chat_template = chat_template
        self.template_kwargs = template_kwargs
        self.template_time = template_time
        # Stands still, in all processes that share the scorer.
        self.began = template_time or datetime.now().isoformat(timespec="seconds")
        self.whole_model = whole_model
        self.ifd = ifd
        self.token_budget = token_budget
        self.pooling: Pooling = pooling
        self._tokenizer = tokenizer
        self._lock = threading.RLock()
        self._ready: _Ready | None = None

    def __getstate__(self) -> dict[str, Any]:
        held = {"_lock", "_ready"}
        return {name: value for name, value in self.__dict__.items() if name not in held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
        self._ready = None

    @property
    def model(self) -> nn.Module:
        """The module; that of a `LanguageModelSpec` is loaded at the first use."""
        return self._load().model

    @property
    def usage(self) -> Usage:
        """Tokens that went through the model so far, and how many of them are padding."""
        return self._load().forward.usage

    @property
    def transform(self) -> Encoder:
        """The transform for `open_source`: from conversations to tokens."""
        return self._load().encoder

    def _load(self, *, verified: bool = False) -> _Ready:
        """Return the model and its sub-models, prepared anew if the model has changed since.

        Args:
            verified: whether to compare digests, which also see a write through `.data`.
        """
        with self._lock:
            ready = self._ready
            if ready is None:
                spec = self.spec
                loaded = (spec, self._tokenizer) if isinstance(spec, nn.Module) else spec.load()
                ready = _Ready(self, *loaded)
            elif ready.version.stale() or (verified and ready.version.differs()):
                ready = _Ready(self, ready.model, ready.tokenizer)
            self._ready = ready
            return ready

    def continued(self, manifest: Path) -> CausalLMScorer:
        """Return the scorer at the moment at which a run was begun, if its template is dated.

        Args:
            manifest: of the run; it need not exist.
        """
        if self.template_time is not None or not manifest.exists():
            return self
        try:
            recorded = read_json_object(manifest)["head"]["template_time"]
        except (ValueError, TypeError, KeyError):  # not such a run, as the ledger will say
            return self
        if recorded == self.began:
            return self
        twin = copy.copy(self)
        twin.began = recorded
        if self._ready is not None:
            twin._ready = _Ready(twin, self._ready.model, self._ready.tokenizer)
        return twin

    def check(self, source: Source) -> None:
        """Check that the data are conversations, encoded at the moment of this run.

        Raises:
            ValueError: another kind of source, or another moment.
        """
        for part in parts_of(source):
            if not isinstance(part, InstructionSource):
                raise ValueError(
                    "a language model scores instruction sets, and this source is a "
                    f"{type(part).__name__}: pass the data as a path, a datasets.Dataset or a "
                    "list of rows"
                )
            there, here = (
                getattr(encoder, "template_time", None)
                for encoder in (part.encoder, self.transform)
            )
            if there != here:
                raise ValueError(
                    f"the chat template is dated, the data were opened at {there} and the run was "
                    f"begun at {here}: pass the data as a path, or template_time={here!r} to the "
                    "scorer"
                )

    def features_forwards(self) -> int:
        """Return how many further forwards per row the features take; see `RowScorer`."""
        return 0 if self.whole_model or self.ifd or 1.0 in self.path.capacities else 1

    def operations_per_row(self, inputs: Sequence[Tokens] | Pairs) -> tuple[float, torch.device]:
        """Return the additions and multiplications of a row that is as long as these; and where."""
        ready = self._load()
        weights = sum(one.numel() for one in ready.model.parameters() if one.dim() > 1)
        rows = [*inputs.chosen, *inputs.rejected] if isinstance(inputs, Pairs) else inputs
        tokens = sum(len(row.ids) for row in rows) / len(inputs)
        device = next(ready.model.parameters()).device
        return 2.0 * weights * tokens * len(ready.family.groups()), device

    def fitted(
        self,
        source: Source,
        keep_in: Path | None,
        batch_size: int,
        progress: Progress | None,
        features: FeatureSink | None = None,
    ) -> CausalLMScorer:
        """Return the scorer itself: it has nothing to fit."""
        return self

    def score_rows(
        self, batch: Batch, progress: BatchProgress | None = None, *, features: bool = False
    ) -> RowScores:
        """Score a window of conversations, any of which may lack a response.

        The rows are sorted by length and cut into batches of the token budget, and every sub-model
        is made once for all of them: pass many rows at a time. A row gets the same score in any
        window, up to the rounding of the library's matrix products.

        Args:
            batch: with `Tokens` or `Pairs` as inputs, see `InstructionSource`.
            progress: called after each forward with the rows that are done, K sub-models counting
                as one pass over the rows.
            features: whether to return the whole model's last hidden states at the positions that
                predict the response tokens, pooled.
        """
        with self._lock, torch.inference_mode():
            return self._score_rows(batch, progress, features)

    def token_nll(self, rows: Sequence[Tokens]) -> list[NDArray[np.float64]]:
        """Return −log p of the T response tokens of each row under the whole model, in nats."""
        if not rows:
            return []
        with self._lock, torch.inference_mode():
            forward = self._load().forward
            packed = forward.pack(rows)
            found = forward.whole(packed, passed=lambda _: None, tokens=True).token_nll
        assert found is not None
        return np.split(found.numpy(), packed.counts.long().cumsum(0)[:-1].numpy())

    def _score_rows(
        self, batch: Batch, progress: BatchProgress | None, features: bool
    ) -> RowScores:
        ready = self._load()
        status, detail = list(batch.status), list(batch.detail)
        ok = torch.tensor([i for i, s in enumerate(status) if s == OK], dtype=torch.int64)
        inputs: Sequence[Tokens] | Pairs = batch.inputs
        if len(ok) != len(inputs):
            raise ValueError(
                f"batch.inputs must hold the {len(ok)} rows whose status is ok, got {len(inputs)}"
            )
        if isinstance(inputs, Pairs):
            rows = [*inputs.chosen, *inputs.rejected]
            scores, hidden = self._columns(ready, rows, halved(progress), features)
            scores = beside(scores, self.path.weights)
            hidden = None if hidden is None else hidden[: len(inputs)]
        else:
            scores, hidden = self._columns(ready, inputs, progress, features)
        log_probs = torch.full((len(self.path), len(batch)), torch.nan, dtype=torch.float64)
        log_probs[:, ok] = -scores.pop("nll")
        extra = {name: scatter(values.double(), ok, len(batch)) for name, values in scores.items()}
        reduced = reduce_path(log_probs.numpy(), self.path.weights)
        lc, loss, lc_std = (torch.from_numpy(column) for column in reduced)
        finite = torch.stack([lc, loss, lc_std, *extra.values()]).isfinite().all(0)
        for i in ok[~finite[ok]].tolist():
            status[i], detail[i] = NON_FINITE, NON_FINITE_OUTPUT
            log_probs[:, i] = lc[i] = loss[i] = lc_std[i] = torch.nan
        return RowScores(
            PathScores(lc.float(), loss.float(), log_probs.float()),
            lc_std.float(),
            status,
            detail,
            {
                name: values.nan_to_num(0).to(torch.int64)
                if name.startswith("token_count")
                else values.float()
                for name, values in extra.items()
            },
            None if hidden is None else of_batch(np.array([s == OK for s in batch.status]), hidden),
        )

    def _columns(
        self,
        ready: _Ready,
        rows: Sequence[Tokens],
        progress: BatchProgress | None,
        features: bool,
    ) -> tuple[dict[str, Tensor], NDArray[np.float32] | None]:
        """Return nll (K, M) of M rows and further columns (M,), float64 on the host; features."""
        forward, family = ready.forward, ready.family
        packed = forward.pack(rows)
        nll = torch.zeros(len(self.path), len(rows), dtype=torch.float64)
        # A sub-model that keeps every weight is the whole model, which is not run twice.
        full = self.path.capacities.index(1.0) if 1.0 in self.path.capacities else None
        wanted = self.whole_model or self.ifd or features
        extra_passes = (wanted and full is None) + self.ifd
        passed = _Passes(len(family.groups()) + extra_passes, progress).add
        whole: Means | None = None
        with family.in_use():
            for points in family.groups():
                family.at(points[0])
                entropy = self.whole_model and full in points
                found = forward.means(
                    packed,
                    points,
                    passed=passed,
                    entropy=entropy,
                    tokens=self.ifd and full in points,
                    hidden=features and full in points,
                )
                for k, means in zip(points, found, strict=True):
                    nll[k] = means.nll
                    whole = means if k == full else whole
        nll = nll[list(family.first_equal)]
        if whole is None and wanted:
            whole = forward.whole(
                packed,
                passed=passed,
                entropy=self.whole_model,
                tokens=self.ifd,
                hidden=features,
            )
        columns = {"nll": nll, "token_count": packed.counts}
        if whole is not None and whole.entropy is not None:
            columns |= {"perplexity": whole.nll.exp(), "entropy": whole.entropy}
        if whole is not None and self.ifd:
            alone = forward.pack([ready.alone(row) for row in rows])
            bare = forward.whole(alone, passed=passed, tokens=True)
            columns |= prompt_effect(whole, bare, packed)
        hidden = None if whole is None else whole.hidden
        return columns, None if hidden is None else hidden.numpy()

    @property
    def mask_account(self) -> MaskAccount | None:
        """What the masks of the sub-models reach; None for dropout on branches."""
        return self._load().family.account

    def describe(self) -> dict[str, Any]:
        """Return all that the scores depend on but the data, as JSON values with digests."""
        ready = self._load(verified=True)
        spec = self.spec
        named = spec.to_dict() if isinstance(spec, LanguageModelSpec) else type(spec).__qualname__
        return {
            "model": named,
            "model_digest": ready.version.digest,
            "masking": self.masking.to_dict() | ready.family.describe(),
            "path": self.path.to_dict(),
            "head": {
                "kind": "lm",
                "whole_model": self.whole_model,
                "ifd": list(PROMPT_EFFECT) if self.ifd else False,
                **({} if self.pooling == "mean" else {"pooling": self.pooling}),
                **ready.encoder.describe(),
            },
            "dtype": str(ready.dtype).removeprefix("torch."),
        }


class _Ready:
    """A loaded model, and what is computed once for it."""

    def __init__(self, scorer: CausalLMScorer, model: nn.Module, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        has_images = reads_images(tokenizer)
        # The causal language model that is masked and run.
        side = LanguageSide(model) if has_images else model
        with evaluating(self.model):
            head = VocabularyHead(side)
        if has_images and not head.linear:
            raise ValueError(
                f"model: the head of {type(model).__name__} is not a linear map of the last hidden "
                "states, and models of images are scored through those"
            )
        make = ImageTextEncoder if has_images else Encoder
        own = tokenizer.tokenizer if has_images else tokenizer
        self.encoder = make(
            tokenizer,
            window=window_of(self.model, own, scorer.max_tokens),
            chat_template=scorer.chat_template,
            template_kwargs=scorer.template_kwargs,
            template_time=scorer.began,
            turns=scorer.turns,
            reasoning=scorer.reasoning,
            vocabulary=self._vocabulary(),
        )
        if isinstance(side, LanguageSide):
            assert isinstance(self.encoder, ImageTextEncoder)
            side.check(self.encoder.probe)
        self.family = family_of(side, head.name, scorer.path, scorer.masking)
        if self.family.head_mask is not None and not head.linear:
            raise ValueError(
                f"masking: the head of {type(self.model).__name__} is not a linear map and "
                'cannot be masked: use weights="body"'
            )
        self.forward = Forward(side, head, self.family, scorer.token_budget, scorer.pooling)
        self.dtype: torch.dtype = head.module.weight.dtype
        start = getattr(own, "bos_token_id", None)
        self._start = getattr(own, "eos_token_id", None) if start is None else start
        if scorer.ifd and self._start is not None and self._start >= self._vocabulary():
            raise ValueError(
                f"ifd: the start token {self._start} of the tokenizer is beyond the "
                f"{self._vocabulary()} tokens that the model has an embedding of: use the "
                "tokenizer that the model was trained with"
            )
        # Masks do not count: they bypass the version counter, and are undone.
        self.version = ModelVersion(model, buffers=False)

    def _vocabulary(self) -> int:
        """Return the number of tokens that the model has an embedding of."""
        whole: Any = self.model
        return len(whole.get_input_embeddings().weight)

    def alone(self, row: Tokens) -> Tokens:
        """Return a row's response without its prompt, after one start token."""
        first = row.ids[0] if self._start is None else self._start
        ids = np.insert(row.ids[row.response], 0, first)
        return Tokens(ids, np.arange(len(ids)) > 0)


class _Passes:
    """Counts the rows of a batch that are done, where every row takes several passes."""

    def __init__(self, passes: int, progress: BatchProgress | None) -> None:
        self._passes, self._progress = passes, progress
        self._rows = 0

    def add(self, rows: int) -> None:
        """Record that so many rows have gone through one more pass."""
        self._rows += rows
        if self._progress is not None:
            self._progress(self._rows // self._passes)


def _default_path(masking: Masking) -> LearningPath:
    if masking.kind == "dropout":
        return LearningPath.linear(9, 0.1, 0.9)
    return LearningPath.gauss(8, LOWEST_CAPACITY, 1.0)
