"""Encoders of Hugging Face by name or folder: classifiers and bare ones, of texts and of images."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from lc_engine._util.extras import MissingExtraError, require
from lc_engine._util.json_file import read_json_object
from lc_engine.models.image_text import ImageTower, is_image_text_model
from lc_engine.models.pooling import masked_mean
from lc_engine.models.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# How the states of tokens become one vector: as the folder says, the first token, the mean over all
# that are no padding, or what the model's own pooler makes of them.
TextPooling = Literal["auto", "cls", "mean", "pooler"]

PREFIX: Final = "hf/"
_TASKS: Final = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForImageClassification": "AutoModelForImageClassification",
}
# Heads that an encoder was trained with, and is used without.
_PRETRAINING: Final = ("ForMaskedLM", "ForPreTraining", "ForMaskedImageModeling")
# Of a folder of sentence-transformers.
_POOLING_FILE: Final = "1_Pooling/config.json"
_LENGTH_FILE: Final = "sentence_bert_config.json"
_NAMED: Final = 5


def is_encoder(name: str) -> bool:
    """Return whether a name is that of an encoder: "hf/ORG/NAME", or a folder that says so.

    A folder says so by the architecture in its config.json, or by what sentence-transformers or an
    image processor put beside it.
    """
    if name.startswith(PREFIX):
        return True
    folder = Path(name)
    if not (folder / "config.json").is_file():
        return False
    architectures = read_json_object(folder / "config.json").get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if first.endswith((*_TASKS, *_PRETRAINING)):
        return True
    beside = (_POOLING_FILE, "preprocessor_config.json")
    return first.endswith("Model") and (
        any((folder / file).is_file() for file in beside) or _is_masked_model(first)
    )


def _is_masked_model(architecture: str) -> bool:
    """Return whether a bare model is of a kind that is trained on masked texts."""
    auto = require("transformers.models.auto.modeling_auto", "language")
    kind = architecture.removesuffix("Model")
    names: Mapping[str, str] = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return f"{kind}ForMaskedLM" in names.values()


class PooledEncoder(nn.Module):
    """A bare encoder of texts, whose output is one vector per text.

    Args:
        encoder: returns `last_hidden_state` (N, T, D).
        pooling: "cls", "mean" or "pooler".
    """

    def __init__(self, encoder: nn.Module, pooling: TextPooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Return (N, D)."""
        found = self.encoder(attention_mask=attention_mask, **inputs)
        if self.pooling == "pooler":
            pooled: Tensor = found.pooler_output
            return pooled
        states: Tensor = found.last_hidden_state
        return states[:, 0] if self.pooling == "cls" else masked_mean(states, attention_mask)

    def get_classifier(self) -> nn.Module:
        """Return what stands for no classifier: the output are the features."""
        return nn.Identity()


def load_encoder(
    name: str, pooling: TextPooling = "auto", max_tokens: int | None = None
) -> tuple[nn.Module, Any]:
    """Return an encoder in float32, on the CPU, and its transform.

    Args:
        name: see `is_encoder`.
        pooling: of a bare encoder of texts.
        max_tokens: longest text; None takes the limit of model and tokenizer.

    Returns:
        The module; a `TextEncoder`, or the function from a PIL image to a tensor.

    Raises:
        ValueError: not an encoder that `transformers` has a class for, a checkpoint that lacks
            tensors of its model, or a pooling that the model does not have.
        MissingExtraError: transformers is not installed.
    """
    if pooling not in get_args(TextPooling):
        raise ValueError(f"pooling must be one of {get_args(TextPooling)}, got {pooling!r}")
    model, task = _loaded(name)
    where, config = name.removeprefix(PREFIX), model.config
    in_one_space = is_image_text_model(model)
    if in_one_space or model.main_input_name == "pixel_values":
        if pooling != "auto" or max_tokens is not None:
            raise ValueError(f"pooling and max_tokens are for texts, and {name} reads images")
        return ImageTower(model) if in_one_space else model, _image_transform(where)
    if model.main_input_name != "input_ids":
        raise ValueError(f"model {name} reads {model.main_input_name}: use lc.Loss (any-loss.md)")
    tokenizer = _tokenizer(where)
    if not tokenizer.is_fast:
        raise ValueError(f"model {name}: its tokenizer has no fast version (tokenizer.json)")
    is_bare = task == "AutoModel"
    if not is_bare and pooling != "auto":
        raise ValueError(f"pooling is for a bare encoder, and {name} has a head of its own")
    encoder = TextEncoder(
        tokenizer,
        _window(where, config, tokenizer, max_tokens),
        None if is_bare else _class_names(config),
        classifies=not is_bare,
    )
    if not is_bare:
        return model, encoder
    return PooledEncoder(model, _pooling(where, model, pooling)), encoder


def load_whole(name: str) -> tuple[Any, Any]:
    """Return a model with all its parts, in float32 on the CPU, and its tokenizer.

    Raises:
        ValueError: see `load_encoder`.
    """
    return _loaded(name)[0].eval(), _tokenizer(name.removeprefix(PREFIX))


def _tokenizer(where: str) -> Any:
    auto = require("transformers", "language").AutoTokenizer
    return auto.from_pretrained(where, trust_remote_code=False)


def _loaded(name: str) -> tuple[Any, str]:
    """Return a model, without a pooler that is not in the checkpoint, and the class that loaded it.

    Raises:
        ValueError: see `load_encoder`.
    """
    transformers = require("transformers", "language")
    where = name.removeprefix(PREFIX)
    try:
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
        first = (config.architectures or [""])[0]
        task = next((auto for end, auto in _TASKS.items() if first.endswith(end)), "AutoModel")
        with quiet():
            model, report = getattr(transformers, task).from_pretrained(
                where,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except (MemoryError, MissingExtraError):
        raise
    except Exception as error:  # files that are damaged raise anything at all
        reason = " ".join(str(error).split())
        raise ValueError(f"model {name} cannot be loaded as an encoder: {reason}") from None
    missing = sorted(report["missing_keys"])
    no_pooler = [key for key in missing if ".pooler." in f".{key}"]
    lost = [key for key in missing if task != "AutoModel" or key not in no_pooler]
    lost += sorted(str(key) for key, *_ in report["mismatched_keys"])
    if lost:
        raise ValueError(
            f"model {name}: the checkpoint lacks {len(lost)} tensors of its model, which would be "
            f"random: {', '.join(lost[:_NAMED])}: give the model as it was fine-tuned"
        )
    if no_pooler:
        model.pooler = None
    return model, task


def _pooling(where: str, model: nn.Module, asked: TextPooling) -> TextPooling:
    has_pooler = getattr(model, "pooler", None) is not None
    if asked == "pooler" and not has_pooler:
        raise ValueError(f"pooling: {where} has no trained pooler: take cls or mean")
    if asked != "auto":
        return asked
    file = file_of(where, _POOLING_FILE)
    if file is not None:
        said = {key for key, value in read_json_object(file).items() if value is True}
        modes = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
        found: list[Any] = [modes[key] for key in modes if key in said]
        others = [key for key in said if key.startswith("pooling_mode") and key not in modes]
        if len(found) != 1 or others:
            raise ValueError(
                f"pooling: {file} asks for {', '.join(sorted(said))}, and cls or mean is known: "
                "choose one with pooling="
            )
        chosen: TextPooling = found[0]
        return chosen
    return "pooler" if has_pooler else "mean"


def _window(where: str, config: Any, tokenizer: Any, asked: int | None) -> int:
    """Return the most tokens of a text: as asked for, or the least limit that is stated."""
    own = tokenizer.model_max_length
    positions = getattr(config, "max_position_embeddings", None)
    limits = [n for n in (own, positions) if isinstance(n, int) and 2 <= n < 1 << 30]
    most = min(limits, default=512)
    if asked is not None:
        if not 2 < asked <= most:
            raise ValueError(f"max_tokens must be 3 to {most} for {where}, got {asked}")
        return asked
    file = file_of(where, _LENGTH_FILE)
    said = None if file is None else read_json_object(file).get("max_seq_length")
    return min(most, said) if isinstance(said, int) and said > 2 else most


def file_of(where: str, name: str) -> Path | None:
    """Return a file of a folder or a repository, None if there is none."""
    if Path(where).is_dir():
        return Path(where) / name if (Path(where) / name).is_file() else None
    found = require("transformers.utils", "language").cached_file(
        where, name, _raise_exceptions_for_missing_entries=False
    )
    return None if found is None else Path(found)


def _class_names(config: Any) -> tuple[str, ...] | None:
    """Return the names of the classes; None where they are those that nobody gave."""
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    generic = tuple(f"LABEL_{i}" for i in range(len(names)))
    return None if names == generic else names


def _image_transform(where: str) -> Callable[[Any], Tensor]:
    auto = require("transformers", "language").AutoImageProcessor
    return ImageTransform(auto.from_pretrained(where, trust_remote_code=False))


class ImageTransform:
    """From a PIL image to the input of a model, by its image processor.

    Args:
        processor: of `transformers`.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, image: Any) -> Tensor:
        """Return (3, H, W)."""
        found: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"]
        return found[0]

    def __repr__(self) -> str:
        return " ".join(repr(self._processor).split())


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off the progress bars of `transformers` while it loads."""
    logging = require("transformers.utils.logging", "language")
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
