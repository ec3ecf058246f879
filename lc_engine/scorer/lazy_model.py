"""The model of a scorer: loaded at its first use, its sub-models prepared once per weights."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self, get_args

import torch
from torch import nn

from lc_engine.backbone.dtypes import Precision
from lc_engine.backbone.masked_weights import WHOLE
from lc_engine.masking import Masking
from lc_engine.models.device import resolve_device
from lc_engine.models.load import ModelSpec
from lc_engine.path.learning_path import LearningPath, checked_path
from lc_engine.scorer.path_features import PathFeatures
from lc_engine.scorer.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.backbone.early_exits import Exits
    from lc_engine.backbone.interface import Views
    from lc_engine.data.fields import Inputs
    from lc_engine.masking import MaskAccount
    from lc_engine.models.text_encoder import TextEncoder

# What a pickle leaves out, and a scorer begins without.
_TRANSIENT = ("_lock", "_model", "_transform", "_prepared", "_ready_head")


class LazyModel:
    """A model and its sub-models; see `Scorer` for the arguments.

    Threads may share it; they take turns. A `ModelSpec` (or a text) is loaded when the model is
    first needed, and pickles without it.
    """

    def __init__(
        self,
        model: nn.Module | ModelSpec | str,
        path: LearningPath | None,
        masking: Masking | Exits | None,
        classifier: str | None,
        device: torch.device | str | None,
        dtype: Precision | None,
    ) -> None:
        self.spec = ModelSpec(model) if isinstance(model, str) else model
        if not isinstance(self.spec, ModelSpec | nn.Module):
            raise ValueError(
                f"model must be a module, a ModelSpec or a text, got {type(model).__name__}"
            )
        if isinstance(self.spec, nn.Module) and device is not None:
            raise ValueError("device is for a model that is loaded here: move the module yourself")
        if dtype is not None and dtype not in get_args(Precision):
            raise ValueError(f"dtype must be one of {get_args(Precision)} or None, got {dtype!r}")
        self.masking = Masking() if masking is None else masking
        if self.masking.brings_path and path is not None:
            raise ValueError("path: exits bring their own, one point each; leave it out")
        self._path = LearningPath.gauss() if path is None else checked_path(path)
        self.classifier = classifier
        self.device = device
        self.dtype: Precision | None = dtype
        self._rows = 0  # of the job that this is the scorer of; 0 where there is none
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._model: nn.Module | None = self.spec if isinstance(self.spec, nn.Module) else None
        self._transform: Callable[[Any], Tensor] | TextEncoder | None = None
        self._prepared: Prepared | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _TRANSIENT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _twin(self) -> Self:
        """Return a copy of the settings that shares what is loaded and prepared."""
        self._prepare()
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    @property
    def model(self) -> nn.Module:
        """The module; a `ModelSpec` is loaded at the first use."""
        with self._lock:
            if self._model is None:
                assert isinstance(self.spec, ModelSpec)
                loaded = self.spec.load()
                self._model = loaded.model.to(resolve_device(self.device))
                self._transform = loaded.transform
            return self._model

    @property
    def transform(self) -> Callable[[Any], Tensor] | TextEncoder | None:
        """The transform of a `ModelSpec`, PIL image -> tensor or of texts; None if unknown."""
        return self._transform if self.model is not None else None

    @property
    def path(self) -> LearningPath:
        """The K capacities; of exits, known once the model is loaded."""
        return self._prepare().family.path if self.masking.brings_path else self._path

    @property
    def input_device(self) -> torch.device:
        """Where the model is; inputs are brought there."""
        return self._prepare().device

    @property
    def mask_account(self) -> MaskAccount | None:
        """What the masks of the sub-models reach; None for early exits."""
        return self._prepare().family.account

    def describe(self) -> dict[str, Any]:
        """Return model, masking, path and dtype as JSON values with digests."""
        spec, prepared = self.spec, self._prepare(verified=True)
        own = str(prepared.dtype).removeprefix("torch.")
        return {
            "model": spec.to_dict() if isinstance(spec, ModelSpec) else type(spec).__qualname__,
            "model_digest": prepared.version.digest,
            "masking": self.masking.to_dict() | prepared.family.describe(),
            "path": self.path.to_dict(),
            "dtype": own if self.dtype is None else self.dtype,
        }

    def _prepare(self, *, verified: bool = False) -> Prepared:
        """Return weights and thresholds, anew if the model has changed since.

        Args:
            verified: whether to compare digests, which also see a write through `.data`.
        """
        with self._lock:
            if self._prepared is not None:
                version = self._prepared.version
                if version.stale() or (verified and version.differs()):
                    self._prepared = None
            if self._prepared is None:
                prepared = Prepared(self.model, self.classifier, self.masking, self._path)
                self._check_prepared(prepared)
                self._prepared = prepared
            return self._prepared

    def _check_prepared(self, prepared: Prepared) -> None:
        """Refuse sub-models that do not fit the rest of a scorer, once they are made."""

    def _views(self, inputs: Inputs) -> Views:
        prepared = self._prepare()
        return prepared.views(inputs, prepared.compute_dtype(self.dtype), self._rows)

    def _whole_features(self, inputs: Inputs) -> tuple[Tensor, tuple[int, ...]]:
        """Return the features (N, D) of the whole model, and the widths of their parts."""
        inputs = inputs.to(self.input_device)
        with self._lock, torch.inference_mode():
            if isinstance(inputs, PathFeatures):  # a reading that was begun again
                return inputs.at([WHOLE])[0], ()
            views = self._views(inputs)
            return views.whole(inputs), views.widths

    def _path_features(self, inputs: Inputs) -> list[Tensor]:
        """Return the features of all sub-models, K × (N, D), on the host."""
        inputs = inputs.to(self.input_device)
        with self._lock, torch.inference_mode():
            found = self._views(inputs).features(inputs, range(len(self.path)))
            return [values.float().cpu() for values in found]
