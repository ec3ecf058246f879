"""Options: declared once, in a data class, and the same in Python as on the command line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import pytest
import torch
import typer

from lc_engine.backbone import dtypes
from lc_engine.cli import choices
from lc_engine.cli import main as cli
from lc_engine.cli.bench import BenchCommand
from lc_engine.cli.command import command
from lc_engine.cli.demo import DemoCommand
from lc_engine.cli.plan import PlanCommand
from lc_engine.cli.prune import PruneCommand
from lc_engine.cli.report import ReportCommand
from lc_engine.cli.score import ScoreCommand
from lc_engine.cli.score_options import JobOptions
from lc_engine.cli.select import SelectCommand
from lc_engine.data.targets import LabelKind
from lc_engine.language import model as language_model
from lc_engine.language.encoder import Reasoning, Turns
from lc_engine.language.forward import Pooling
from lc_engine.masking.masking import Kind, Scope, Which
from lc_engine.models.hugging_face import TextPooling
from lc_engine.ops.prototype_confidence import Logit
from lc_engine.scorer.head_config import HeadKind
from lc_engine.selection import STRATEGIES

COMMANDS = {
    "prune": PruneCommand,
    "score": ScoreCommand,
    "plan": PlanCommand,
    "select": SelectCommand,
    "report": ReportCommand,
    "bench": BenchCommand,
    "demo": DemoCommand,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    name: Annotated[str, typer.Option(help="A name.")]
    size: Annotated[int | None, typer.Option(min=1, help="A size.")] = None
    kind: Annotated[Literal["a", "b"], typer.Option(help="A kind.")] = "a"
    share: Annotated[
        float | Literal["auto"],
        typer.Option(parser=lambda text: text if text == "auto" else float(text), help="A share."),
    ] = "auto"
    on: Annotated[bool, typer.Option("--switch/--no-switch", help="A switch.")] = False


def call(*arguments):
    """Run a command of `Options`: what it was called with, or its exit code."""
    seen = []

    def function(options):
        """Say what this does."""
        seen.append(options)

    app = typer.Typer(add_completion=False)
    app.command()(command(Options, function))
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    return seen[0] if seen else end.value.code


def test_a_command_is_called_with_the_data_class_of_its_options():
    assert call("--name", "x") == Options(name="x")
    given = ("--name=x", "--size=3", "--kind=b", "--share=.5", "--switch")
    assert call(*given) == Options(name="x", size=3, kind="b", share=0.5, on=True)


@pytest.mark.parametrize(
    "given", [(), ("--name=x", "--size=0"), ("--name=x", "--kind=c"), ("--name=x", "--other")]
)
def test_what_the_data_class_does_not_allow_is_a_usage_error(given):
    assert call(*given) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["score", "--model=m", "--data=d", "--head=warp"], "'warp' is not one of"),
        (["score", "--model=m", "--data=d", "--neighbours=none"], "integer"),
        (["select", "scores", "--keep=most"], "'most' is not a number"),
        (["prune", "--model=m", "--data=d", "--keep-bytes=1.5"], "is not a whole number"),
    ],
)
def test_a_usage_error_is_the_sentence_alone(capsys, given, message):
    assert cli.run(given) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in error
    assert "Value error" not in error


def test_the_help_is_that_of_the_function_and_the_fields(capsys):
    assert call("--help") == 0
    text = capsys.readouterr().out
    for part in ("Say what this does.", "A name.", "A switch.", "--no-switch", "required"):
        assert part in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_group_and_one_line_of_help(name):
    groups = {"Model", "Data", "Path", "Selection", "Run"}
    for field, kind in get_type_hints(COMMANDS[name], include_extras=True).items():
        (option,) = kind.__metadata__
        assert option.help.endswith("."), field
        assert "\n" not in option.help
        assert len(option.help) <= 80, field
        if not isinstance(option, typer.models.ArgumentInfo):
            assert option.rich_help_panel in groups, field


def test_choices_are_those_of_the_library():
    assert get_args(choices.Head) == get_args(HeadKind)
    assert {*get_args(choices.LabelKind), "any"} == {*get_args(LabelKind)}
    assert get_args(choices.TextPooling) == get_args(TextPooling)
    assert get_args(choices.Logit) == get_args(Logit)
    assert get_args(choices.Scope) == get_args(Scope)
    assert get_args(choices.Weights) == get_args(Which)
    assert get_args(choices.Turns) == get_args(Turns)
    assert get_args(choices.Pooling) == get_args(Pooling)
    assert get_args(choices.Reasoning) == get_args(Reasoning)
    assert set(get_args(choices.Strategy)) == {*STRATEGIES, "auto"}
    # A saliency per weight cannot be given on the command line; exits are a family of their own.
    assert {*get_args(choices.MaskingKind), "given"} == {*get_args(Kind), "exits"}
    both = {*get_args(dtypes.Precision), *get_args(language_model.Precision)}
    assert set(get_args(choices.Dtype)) == both


@pytest.mark.parametrize(
    ("device", "there", "dtype", "resolved"),
    [
        ("auto", True, None, "cuda"),
        ("auto", False, None, "cpu"),
        ("auto", True, "int8", "cpu"),
        ("cpu", True, None, "cpu"),
    ],
)
def test_device_auto_is_cuda_where_there_is_any(monkeypatch, device, there, dtype, resolved):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    options = JobOptions(model="m", data=["d"], device=device, dtype=dtype)
    assert options.resolved_device() == resolved
    assert JobOptions(model="m", data=["d"]).device == "auto"


def completed(words):
    """What a shell offers for the last of some words."""
    environment = {
        "_LC_ENGINE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "PATH": "",
        "PYTHONPATH": str(Path(cli.__file__).parents[2]),
    }
    code = "from lc_engine.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_shell_completes_commands_options_and_choices(capsys):
    assert completed("lc-engine s") == {"score", "select"}
    assert completed("lc-engine select --strategy ea") == {"easy", "easy_diverse"}
    assert "--shard-rows" in completed("lc-engine score --sh")
    assert cli.run(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
