"""The classifier of a model: its name, its input (features) and its output (logits).

Only the model's forward is used, so that timm, torchvision, Hugging Face and a user's own models
are treated alike: the features are the input of the classifier module, pooled as
the architecture pools them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from lc_engine.data.fields import ATTENTION_MASK, Fields
from lc_engine.models.pooling import Pooling, first_tensor

if TYPE_CHECKING:
    from lc_engine.data.fields import Inputs

AUTO: Final = "auto"


def find_classifier(model: nn.Module, classifier: str | None = AUTO) -> str | None:
    """Return the name of a model's classifier module.

    Args:
        model: any module.
        classifier: a module's name; None where the model's output are its features; or "auto":
            the module that timm's `get_classifier` returns, none for a base model of Hugging
            Face, else the last Linear module, else none.

    Returns:
        The name ("" is the model itself), or None where there is no classifier.

    Raises:
        ValueError: there is no module of that name, or the model has several classifiers.
    """
    if classifier is None:
        return None
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if classifier != AUTO:
        if classifier not in modules:
            raise ValueError(
                f'classifier: {type(model).__name__} has no module "{classifier}"; its linear '
                f"modules are {', '.join(_linear_names(model)) or 'none'}"
            )
        return classifier
    get_classifier: Any = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        found = get_classifier()
        if isinstance(found, (tuple, list)):
            raise ValueError(
                f"{type(model).__name__} has {len(found)} classifiers; name one with "
                f"classifier=, of {', '.join(_linear_names(model)[-len(found) :])}"
            )
        if isinstance(found, nn.Identity):
            return None
        for name, module in modules.items():
            if module is found:
                return name
    if getattr(model, "base_model", None) is model:
        return None  # a model of Hugging Face without a head
    names = _linear_names(model)
    return names[-1] if names else None


def _linear_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


class Tap:
    """Runs a model on a batch and captures the input and the output of its classifier.

    Args:
        model: any module whose forward takes one tensor, or several by name.
        classifier: see `find_classifier`.

    Attributes:
        name: the classifier's name, None where the model's output are the features.
        pool: how the model's outputs become one vector per sample.
    """

    def __init__(self, model: nn.Module, classifier: str | None = AUTO) -> None:
        self.model = model
        self.name = find_classifier(model, classifier)
        self.pool = Pooling(model)
        self._guessed = classifier == AUTO

    @property
    def module(self) -> nn.Module | None:
        """The classifier module, None if there is none."""
        return None if self.name is None else self.model.get_submodule(self.name)

    @property
    def linear(self) -> nn.Linear:
        """The classifier, if it is a Linear module.

        Raises:
            ValueError: it is not, or there is none.
        """
        module = self.module
        if not isinstance(module, nn.Linear):
            found = "none" if module is None else f'"{self.name}", a {type(module).__name__}'
            raise ValueError(
                f'head="linear" needs a model whose classifier is a Linear module, found {found}: '
                'name it with classifier=, or use head="prototype"'
            )
        return module

    def features(self, inputs: Inputs) -> Tensor:
        """Run the model and return the input of its classifier, or its output if it has none.

        Args:
            inputs: (N, …) a batch on the model's device.

        Returns:
            (N, D).

        Raises:
            ValueError: the model cannot take inputs of this shape, its classifier does not run
                exactly once, or the features are not one vector per sample.
        """
        if self.name is None:
            return self.pool(self.run(inputs), len(inputs), "model's output", mask_of(inputs))
        if self.name == "" and isinstance(self.model, nn.Linear):
            # The model is its own classifier: the inputs are the features.
            if isinstance(inputs, Fields):
                raise ValueError("inputs must be one tensor for a model that is its own classifier")
            if inputs.dim() != 2 or inputs.shape[1] != self.model.in_features:
                raise ValueError(
                    f"inputs must have shape (N, {self.model.in_features}) for this head, got "
                    f"{tuple(inputs.shape)}"
                )
            return inputs
        found = self._capture(inputs)[0]
        return self.pool(found, len(inputs), f'input of "{self.name}"', mask_of(inputs))

    def logits(self, inputs: Inputs) -> Tensor:
        """Run the model and return the output of its classifier, (N, C).

        Raises:
            ValueError: see `features`; or the model has no classifier.
        """
        if self.name is None:
            raise ValueError(f"{type(self.model).__name__} has no classifier that returns logits")
        found = self._capture(inputs)[1]
        if isinstance(inputs, Fields) and found.dim() == 3:
            raise ValueError(
                f'"{self.name}" returns logits per token, {tuple(found.shape)}: use a loss, as '
                "lc.Loss(lc_engine.heads.loss.token_nll) is one, or a prototype head"
            )
        return self.pool(found, len(inputs), f'output of "{self.name}"', mask_of(inputs))

    def features_and_logits(self, inputs: Inputs) -> Tensor:
        """Run the model and return the classifier's input and output side by side, (N, D + C).

        Raises:
            ValueError: see `logits`.
        """
        if self.name is None:
            raise ValueError(f"{type(self.model).__name__} has no classifier that returns logits")
        features, logits = self._capture(inputs)
        mask = mask_of(inputs)
        parts = (
            self.pool(features, len(inputs), f'input of "{self.name}"', mask),
            self.pool(logits, len(inputs), f'output of "{self.name}"', mask),
        )
        return torch.cat(parts, dim=1)

    def _capture(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        captured: list[tuple[Tensor, Tensor]] = []

        def capture(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            captured.append(((*args, *kwargs.values())[0], first_tensor(output)))

        handle = self.model.get_submodule(self.name or "").register_forward_hook(
            capture, with_kwargs=True
        )
        try:
            output = first_tensor(self.run(inputs))
        finally:
            handle.remove()
        if len(captured) != 1:
            raise ValueError(
                f'the classifier "{self.name}" ran {len(captured)} times in one forward: name the '
                "module that runs once with classifier="
            )
        if self._guessed and captured[0][1].shape != output.shape:
            raise ValueError(
                f'"{self.name}" was taken for the classifier, but it returns '
                f"{tuple(captured[0][1].shape)} and the model {tuple(output.shape)}: name the "
                "classifier with classifier=, or give classifier=None if the model's output are "
                "its features"
            )
        return captured[0]

    def run(self, inputs: Inputs) -> Any:
        """Run the whole model on a copy of the inputs: a forward may write to what it is given.

        Raises:
            ValueError: it cannot take inputs of this shape or dtype.
        """
        # A name that a forward does not take is a TypeError.
        kinds = (RuntimeError, AssertionError)
        refused = (*kinds, TypeError) if isinstance(inputs, Fields) else kinds
        try:
            return call(self.model, inputs)
        except torch.OutOfMemoryError:
            raise
        except refused as error:
            raise ValueError(
                f"the model cannot take inputs {_in_words(inputs)}: "
                f"{str(error).strip().splitlines()[0] if str(error) else error!r}"
            ) from error


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run a model on a copy of inputs: a tensor, or tensors that go by their names."""
    copied = inputs.clone()
    return model(**copied.values) if isinstance(copied, Fields) else model(copied)


def mask_of(inputs: Inputs) -> Tensor | None:
    """Return which tokens (N, T) are no padding; None where inputs do not say."""
    return inputs.values.get(ATTENTION_MASK) if isinstance(inputs, Fields) else None


def _in_words(inputs: Inputs) -> str:
    if not isinstance(inputs, Fields):
        return f"of shape {tuple(inputs.shape)} and {inputs.dtype}"
    return ", ".join(
        f"{name} {tuple(value.shape)} of {value.dtype}" for name, value in inputs.values.items()
    )
