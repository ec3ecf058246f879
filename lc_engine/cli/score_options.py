"""Options of `lc-engine score` and `plan`, and the scorer and the data that they stand for."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from lc_engine._util.extras import require
from lc_engine._util.json_file import read_json_object
from lc_engine.cli.choices import (
    Dtype,
    Head,
    LabelKind,
    Logit,
    MaskingKind,
    Pooling,
    Reasoning,
    Scope,
    TextPooling,
    Turns,
    Weights,
)
from lc_engine.cli.command import in_data, in_model, in_path, in_run
from lc_engine.cli.config_file import CONFIG, check_config, read_config, write_config
from lc_engine.cli.data_location import locate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import RowScorer
    from lc_engine.data.table import ScoreTable
    from lc_engine.language.scorer import CausalLMScorer
    from lc_engine.masking import Masking
    from lc_engine.path.deferred import MeasuredPath
    from lc_engine.path.learning_path import LearningPath
    from lc_engine.scorer.scorer import Scorer
    from lc_engine.scoring.progress import Progress

# How the name of a model ends that is the checkpoint of a linear head.
_HEADS = (".safetensors", ".pt", ".pth", ".bin")
# How the names of models of images begin.
_IMAGE_MODELS = ("timm/", "torchvision/")
_FILES = ("out", "labels", "checkpoint", "ids", "chat_template", "prompts")


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What is scored, with which model and along which path."""

    model: Annotated[
        str, in_model(help="timm/NAME, package.module:factory, a file or a folder: see above.")
    ]
    checkpoint: Annotated[
        Path | None,
        in_model(help="Local weights, .safetensors or .pt.", show_default="published ones"),
    ] = None
    image_size: Annotated[
        int | None,
        in_model(min=1, help="Side of an image in pixels.", show_default="the model's own"),
    ] = None
    head: Annotated[
        Head | None,
        in_model(
            help="Class means, the model's own classifier, or the nearest other rows.",
            show_default="linear for a model that is a linear head, else prototype",
        ),
    ] = None
    loss: Annotated[
        str | None,
        in_model(
            help="In place of a head, package.module:function, as docs/any-loss.md says.",
            show_default="none",
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        in_model(
            help="Text with a prompt per class, in place of class means, of a CLIP-like model.",
            show_default="none",
        ),
    ] = None
    logit: Annotated[Logit, in_model(help="Logit of a distance, of the prototype head.")] = (
        "inverse_distance"
    )
    temperature: Annotated[float, in_model(help="Divides the prototype head's logits.")] = 1.0
    neighbours: Annotated[int, in_model(min=1, help="Neighbours of the kNN head.")] = 10
    dtype: Annotated[
        Dtype | None,
        in_model(
            help="Of the computation; auto is the faster of float32 and bfloat16.",
            show_default="the model's own; of a language model auto",
        ),
    ] = None
    ifd: Annotated[
        bool,
        in_model(
            "--ifd/--no-ifd",
            help="Add the instruction-following difficulty: ifd, ifd_ppl and mean_delta.",
        ),
    ] = False
    pooling: Annotated[
        Pooling,
        in_model(
            help="Of the features of texts: the mean over the response, or later tokens more."
        ),
    ] = "mean"

    data: Annotated[
        list[str],
        in_data(
            help="A file, a folder or a URL: see above. Repeat it for several sources.",
            metavar="[NAME=]PATH",
        ),
    ]
    labels: Annotated[
        Path | None, in_data(help="The .npy file of labels or targets that goes with a .npy.")
    ] = None
    label_kind: Annotated[
        LabelKind,
        in_data(help="A class per row, votes per class, or no labels: the largest probability."),
    ] = "class"
    feature_column: Annotated[
        str | None,
        in_data(help="Column of images or features.", show_default="the only one"),
    ] = None
    label_column: Annotated[
        str | None,
        in_data(help="Column of labels.", show_default='"label" or the only one'),
    ] = None
    ids: Annotated[
        Path | None,
        in_data(
            help="An id per row for the scores: .npy, or text with one per line.",
            show_default="paths, else row numbers",
        ),
    ] = None
    form: Annotated[
        str | None,
        in_data(
            help="Of instructions: alpaca, sharegpt, messages, prompt_completion, preference.",
            show_default="detected by the fields",
        ),
    ] = None
    turns: Annotated[Turns, in_data(help="Which answers of a conversation count.")] = "all"
    reasoning: Annotated[
        Reasoning, in_data(help="Score the reasoning in answers, only read it, or leave it out.")
    ] = "score"
    chat_template: Annotated[
        Path | None,
        in_data(help="A Jinja template of conversations.", show_default="the tokenizer's own"),
    ] = None
    template_kwargs: Annotated[
        str | None,
        in_data(
            help="Variables of the template, such as '{\"enable_thinking\": false}'.",
            show_default="none",
        ),
    ] = None
    text_pooling: Annotated[
        TextPooling, in_model(help="Of a bare encoder of texts: the vector of a text.")
    ] = "auto"
    max_tokens: Annotated[
        int | None,
        in_data(
            min=2,
            help="Longest conversation or text; a longer one is cut at its end.",
            show_default="the model's window",
        ),
    ] = None

    path: Annotated[
        str | None,
        in_path(
            help="Capacities, such as gauss:8 or linear:50:0.02:1.0: see above.",
            show_default="gauss:8; of a language model gauss:8:0.7:1.0, of its dropout "
            "linear:9:0.1:0.9",
        ),
    ] = None
    tol: Annotated[
        float | None,
        in_path(
            help="Error in lc that a row may have, for fewer points of clenshaw_curtis.",
            show_default="all points for all rows",
        ),
    ] = None
    masking: Annotated[
        MaskingKind,
        in_path(help="Mask the smallest weights or random ones, drop inputs, or exit early."),
    ] = "magnitude"
    scope: Annotated[
        Scope | None,
        in_path(
            help="One threshold over all weights, or one per layer.",
            show_default="layer for a language model, else global",
        ),
    ] = None
    weights: Annotated[
        Weights | None,
        in_path(
            help="Which weights are masked.",
            show_default="head for a model that is a linear head, else body",
        ),
    ] = None
    mask_seed: Annotated[int, in_path(min=0, help="Seed of random masks and of dropout.")] = 0

    device: Annotated[
        str, in_run(help="cpu, cuda, cuda:1, …; auto is CUDA where there is any.")
    ] = "auto"
    batch_size: Annotated[
        int | None, in_run(min=1, help="Rows at a time.", show_default="by the data")
    ] = None
    num_workers: Annotated[
        int | None,
        in_run(
            min=0,
            help="Decoding threads; of score --ray workers on the cluster.",
            show_default="one per processor; one worker",
        ),
    ] = None
    save_path: Annotated[
        bool, in_run("--save-path/--no-save-path", help="Keep log p at every capacity too.")
    ] = False

    def opened(self, begun: Path | None = None) -> tuple[Scorer | CausalLMScorer, Source]:
        """Load the model and open the data.

        Args:
            begun: the manifest of a run to continue, whose path is taken if one is to be measured.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
            MissingExtraError: a package that an option needs is not installed.
        """
        require("pyarrow", "table")
        from lc_engine.data.open import open_source
        from lc_engine.data.protocols import ContinuesRuns
        from lc_engine.path.deferred import MeasuredPath
        from lc_engine.scorer.scorer import Scorer

        data = locate(self.data)
        scorer = self._scorer(data)
        if begun is not None and isinstance(scorer, ContinuesRuns):
            scorer = scorer.continued(begun)
        source = open_source(
            data,
            labels=self.labels,
            transform=scorer.transform,
            num_workers=self.num_workers,
            feature_column=self.feature_column,
            label_column=self.label_column,
            form=self.form,
            label_kind=getattr(scorer, "label_kind", "class"),
        )
        measured = MeasuredPath.parse(self.path or "")
        if measured is not None and isinstance(scorer, Scorer):
            scorer = scorer.with_path(_measured(measured, scorer, source, begun))
        return scorer, source

    def resolved_device(self) -> str:
        """Return the device to compute on.

        Raises:
            ValueError: torch does not know it, or this machine has none.
        """
        import torch

        from lc_engine.models.device import resolve_device

        if self.device == "auto":  # int8 is for a CPU
            return "cpu" if self.dtype == "int8" else str(resolve_device("auto"))
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(f"--device {self.device}: {str(error).splitlines()[0]}") from None
        return self.device

    def read_ids(self) -> list[str] | np.ndarray | None:
        """Return the ids of the file that names them."""
        from lc_engine.data.readers.id_files import read_ids

        return None if self.ids is None else read_ids(self.ids)

    @property
    def resolved_head(self) -> Head:
        """The head: of a file of its weights the linear one."""
        return self.head or ("linear" if self._is_head else "prototype")

    @property
    def _is_head(self) -> bool:
        return self.model.endswith(_HEADS)

    def _is_for_texts(self, data: Any) -> bool:
        """Return whether the model is a language model: it says so itself, or its data do."""
        from lc_engine.data.locations import is_remote
        from lc_engine.data.wrap.mixture import has_sources
        from lc_engine.language.model import is_language_model
        from lc_engine.language.source import holds_instructions
        from lc_engine.models.hugging_face import is_encoder

        if is_language_model(self.model):
            return True
        # A linear head's file says that the rows are features, and some names that they are images.
        if self._is_head or self.model.startswith(_IMAGE_MODELS) or ":" in self.model:
            return False
        if is_encoder(self.model):
            return False
        parts = data.values() if has_sources(data) else [data]
        return all(not is_remote(one) and holds_instructions(one) for one in parts)

    def _scorer(self, data: Any) -> Scorer | CausalLMScorer:
        from lc_engine.backbone.early_exits import Exits
        from lc_engine.heads.loss import Loss
        from lc_engine.heads.prompts import prompt_prototypes
        from lc_engine.models.load import ModelSpec
        from lc_engine.path.deferred import MeasuredPath
        from lc_engine.path.learning_path import LearningPath
        from lc_engine.scorer.scorer import Scorer

        if self._is_for_texts(data):
            return self._language_scorer()
        for name, value in (
            ("chat-template", self.chat_template),
            ("template-kwargs", self.template_kwargs),
            ("pooling", None if self.pooling == "mean" else self.pooling),
        ):
            if value is not None:
                raise ValueError(f"--{name} is for language models, not for {self.model}")
        if self.dtype == "float16":
            raise ValueError("--dtype float16 is for language models: take bfloat16")
        exits = self.masking == "exits"
        if exits and self.path is not None:
            raise ValueError("--path: exits bring their own points; leave it out")
        learning_path = None
        if not exits and MeasuredPath.parse(self.path or "") is None:
            learning_path = LearningPath.parse(self.path or "gauss:8")
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        loss = None if self.loss is None else Loss(named_function(self.loss))
        if loss is not None and (self.head is not None or self.label_kind != "class"):
            raise ValueError("--loss takes the place of --head and of --label-kind: give one")
        prototypes, temperature = None, self.temperature
        if self.prompts is not None:
            if loss is not None or self.resolved_head != "prototype":
                raise ValueError("--prompts are of the prototype head: leave out --head and --loss")
            try:
                given = self.prompts.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"--prompts {self.prompts} cannot be read: {error}") from None
            prototypes, temperature = prompt_prototypes(self.model, given)
        scorer = Scorer(
            ModelSpec(
                self.model,
                checkpoint=checkpoint,
                image_size=self.image_size,
                pooling=self.text_pooling,
                max_tokens=self.max_tokens,
            ),
            head=loss or self.resolved_head,
            labels=None if self.label_kind == "none" else self.label_kind,
            path=learning_path,
            masking=Exits() if exits else self._masking("global"),
            logit=self.logit if prototypes is None else "cosine",
            temperature=temperature,
            neighbours=self.neighbours,
            device=self.resolved_device(),
            dtype=self.dtype,
            tol=self.tol,
        )
        return scorer if prototypes is None else scorer.use_prototypes(prototypes)

    def _language_scorer(self) -> CausalLMScorer:
        from lc_engine.language.model import LanguageModelSpec
        from lc_engine.language.scorer import CausalLMScorer
        from lc_engine.path.deferred import MeasuredPath
        from lc_engine.path.learning_path import LearningPath

        for name, value in (
            ("checkpoint", self.checkpoint),
            ("image-size", self.image_size),
            ("tol", self.tol),
            (f"path {self.path}", MeasuredPath.parse(self.path or "")),
            ("masking exits", self.masking == "exits" or None),
            ("dtype int8", self.dtype == "int8" or None),
            ("loss", self.loss),
            ("prompts", self.prompts),
            (f"text-pooling {self.text_pooling}", self.text_pooling != "auto" or None),
            (f"label-kind {self.label_kind}", self.label_kind != "class" or None),
        ):
            if value is not None:
                raise ValueError(f"--{name} is for models of images, not for {self.model}")
        assert self.dtype != "int8"
        return CausalLMScorer(
            LanguageModelSpec(self.model, self.dtype or "auto", self.resolved_device()),
            path=None if self.path is None else LearningPath.parse(self.path),
            masking=self._masking("layer"),
            turns=self.turns,
            reasoning=self.reasoning,
            chat_template=self._chat_template(),
            template_kwargs=self._template_kwargs(),
            max_tokens=self.max_tokens,
            ifd=self.ifd,
            pooling=self.pooling,
        )

    def _chat_template(self) -> str | None:
        if self.chat_template is None:
            return None
        try:
            # As it is: Python would turn "\\r\\n" into "\\n".
            return self.chat_template.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--chat-template {self.chat_template}: {error}") from None

    def _template_kwargs(self) -> dict[str, Any] | None:
        if self.template_kwargs is None:
            return None
        try:
            given = json.loads(self.template_kwargs)
        except ValueError as error:
            raise ValueError(f"--template-kwargs is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise ValueError(f"--template-kwargs must be a JSON object, got {given!r}")
        return given

    def _masking(self, scope: Scope) -> Masking:
        from lc_engine.masking import Masking

        assert self.masking != "exits"
        return Masking(
            self.masking,
            scope=self.scope or scope,
            weights=self.weights or ("head" if self._is_head else "body"),
            seed=self.mask_seed,
        )


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(JobOptions):
    """A job, and the folder of its scores: what `_config.json` holds and a Ray worker is sent."""

    out: Annotated[Path, in_run(help="Folder for the scores; a stopped run continues in it.")] = (
        Path("scores")
    )
    features: Annotated[
        bool | None,
        in_run(
            "--features/--no-features",
            help="Keep the whole model's features beside the scores.",
            show_default="where they cost no further forward",
        ),
    ] = None
    shard_rows: Annotated[
        int | None,
        in_run(
            min=1,
            help="Rows per file, which a stopped run may lose.",
            show_default="about a minute of work",
        ),
    ] = None

    def run(
        self, progress: Progress | None = None, check: Callable[[Source], None] | None = None
    ) -> tuple[ScoreTable, dict[str, str]]:
        """Score the data into `out`, and write the configuration there.

        Args:
            progress: of the command.
            check: called with the opened data, before anything is scored.

        Returns:
            The table, and why each file of the data that was left out was, by its name.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
            MissingExtraError: a package that an option needs is not installed.
        """
        from lc_engine._util.ordered_map import default_workers
        from lc_engine.data.locations import check_outside, named_locations
        from lc_engine.data.readers.unreadable_files import unreadable_files
        from lc_engine.data.run.ledger import MANIFEST
        from lc_engine.data.run.side_files import side_file
        from lc_engine.scoring.score import score

        check_config(self.out)
        check_outside(self.out, named_locations(self.data))
        scorer, source = self.opened(side_file(self.out, MANIFEST))
        if check is not None:
            check(source)
        table = score(
            scorer,
            source,
            self.out,
            ids=self.read_ids(),
            batch_size=self.batch_size,
            shard_rows=self.shard_rows,
            return_path=self.save_path,
            features=self.wants_features(scorer),
            progress=progress or False,
        )
        # Not before: until the ledger has accepted the folder, it may be another run's.
        resolved = {
            "head": self.loss or self.resolved_head,
            "path": scorer.path.to_dict(),
            "masking": scorer.masking.to_dict(),
            "device": self.resolved_device(),
            "num_workers": default_workers() if self.num_workers is None else self.num_workers,
            "source": source.describe(),
        }
        write_config(self.out, self.to_dict(), resolved)
        return table, unreadable_files(source)

    def wants_features(self, scorer: RowScorer) -> bool | None:
        """Return whether features are kept; None leaves it to `score`."""
        return self.features

    @classmethod
    def of_run(cls, folder: Path) -> ScoreOptions:
        """Return the options of a run, as the file `_config.json` in its folder has them.

        Raises:
            ValueError: the file is not as `lc-engine score` wrote it.
            FileNotFoundError: there is none.
        """
        from lc_engine.data.run.side_files import side_file

        file = side_file(folder, CONFIG)
        if not file.exists():
            raise FileNotFoundError(f"{folder} has no _{CONFIG}: `lc-engine score` did not make it")
        options = read_config(file, get_type_hints(ScoreOptions, include_extras=True))
        files = {name: Path(options[name]) for name in _FILES if options.get(name) is not None}
        return cls(**(options | files))

    def scorer(self) -> Scorer | CausalLMScorer:
        """Return the scorer of a run that was begun, as it was then; no model is loaded yet."""
        from lc_engine.data.protocols import ContinuesRuns
        from lc_engine.data.run.ledger import MANIFEST
        from lc_engine.data.run.side_files import side_file

        scorer = self._scorer(locate(self.data))
        if isinstance(scorer, ContinuesRuns):
            scorer = scorer.continued(side_file(self.out, MANIFEST))
        return scorer

    def absolute(self) -> ScoreOptions:
        """Return the same job with paths that hold in any folder."""
        from lc_engine.data.locations import absolute_location

        files: dict[str, Any] = {
            name: value.resolve() for name in _FILES if (value := getattr(self, name)) is not None
        }
        return replace(
            self,
            **files,
            model=absolute_location(self.model),
            data=[absolute_location(one) for one in self.data],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values, with paths that hold in any folder."""
        known = {field.name for field in fields(ScoreOptions)}
        found: dict[str, Any] = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self.absolute()).items()
            if name in known
        }
        if len(self.data) == 1:  # as before there were several
            found["data"] = found["data"][0]
        return found


def _use_config(context: typer.Context, file: Path | None) -> Path | None:
    """Let a file's options take the place of the defaults."""
    if file is not None:
        kinds = get_type_hints(ScoreOptions, include_extras=True)
        context.default_map = read_config(file, kinds)
    return file


ConfigFile = Annotated[
    Path | None,
    in_run(
        "--config",
        help="_config.json of an earlier run, for all options that are not given here.",
        callback=_use_config,
        is_eager=True,
    ),
]


def named_function(name: str) -> Callable[..., Any]:
    """Return the function that --loss package.module:function names.

    Raises:
        ValueError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--loss {name!r} is no package.module:function that can be imported: {error}"
        ) from None
    if not callable(found):
        raise ValueError(f"--loss {name!r} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _measured(
    wanted: MeasuredPath, scorer: Scorer, source: Source, begun: Path | None
) -> LearningPath:
    """Measure the path, or take the one that a run was begun with."""
    from lc_engine.path.learning_path import LearningPath

    if begun is not None and begun.exists():
        try:
            path = LearningPath.from_dict(read_json_object(begun)["path"])
        except (KeyError, TypeError, ValueError):  # not such a run, as the ledger will say
            path = None
        if path is not None and wanted.matches(path):
            return path
    return wanted.measure(scorer, source)
