"""A command of the command line, built from the data class of its options."""

from __future__ import annotations

import copy
import inspect
from dataclasses import MISSING, Field, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Callable

_Options = TypeVar("_Options")

# The groups of options in a command's help: `in_model(help="…")` is an option in the group Model.
in_model: Final = partial(typer.Option, rich_help_panel="Model")
in_data: Final = partial(typer.Option, rich_help_panel="Data")
in_path: Final = partial(typer.Option, rich_help_panel="Path")
in_selection: Final = partial(typer.Option, rich_help_panel="Selection")
in_run: Final = partial(typer.Option, rich_help_panel="Run")


# The option that may give the values of others.
_CONFIG: Final = "config"
# Before a ValueError's text, where typer converts by pydantic.
_PREFIX: Final = "Value error, "


class Command(TyperCommand):
    """A command whose errors are the sentences of those who raised them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command line into the context."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_PREFIX)
            raise
        except Exception as error:
            # Typer brings its own copy of click or takes that of the environment, by its version.
            given = getattr(error, "option_name", None)
            others = [] if given is None else _commands_with(given, ctx)
            if others and type(error).__name__ == "NoSuchOption":
                error.message = f"{given} is no option of {ctx.info_name}, but of "  # type: ignore[attr-defined]
                error.message += ", ".join(others)  # type: ignore[attr-defined]
                error.possibilities = None  # type: ignore[attr-defined]
            raise


def _commands_with(option: str, ctx: Any) -> list[str]:
    """Return which commands have an option."""
    commands = {} if ctx.parent is None else ctx.parent.command.commands
    return [name for name, other in commands.items() if any(option in p.opts for p in other.params)]


def command(options: type[_Options], function: Callable[[_Options], None]) -> Callable[..., None]:
    """Return what `typer.Typer.command` takes: a function with a parameter per option.

    Args:
        options: a data class. A field is one option: its name, its default, and its type and help
            as `Annotated[type, typer.Option(...)]`.
        function: called with the options; its docstring is the command's help.

    Raises:
        ValueError: by the function, an option without a default that neither the command line nor
            the file of its option `config` gives.
    """
    kinds = get_type_hints(options, include_extras=True)
    required = [field.name for field in fields(options) if field.default is MISSING]  # type: ignore[arg-type]
    from_config = required if _CONFIG in kinds else []

    def call(**given: Any) -> None:
        for name in from_config:
            if given[name] in (None, []):
                raise ValueError(f"--{name} is missing: give it, or --config with a file of it")
        function(options(**given))

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    parameters = [
        _parameter(field, kinds[field.name], field.name in from_config)
        for field in fields(options)  # type: ignore[arg-type]
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _parameter(field: Field[Any], kind: Any, from_config: bool) -> inspect.Parameter:
    if any(getattr(option, "parser", None) for option in kind.__metadata__):
        # The parser makes what the field holds; typer is content with few types otherwise.
        kind = Annotated[str, *kind.__metadata__]
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if from_config:
        (option,) = map(copy.copy, kind.__metadata__)
        option.show_default = "that of --config; needed without"
        kind, default = Annotated[kind.__origin__ | None, option], None
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
    )
