"""A command of the command line, built from the data class of its options."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

_Options = TypeVar("_Options")

# The groups of options in a command's help: `in_model(help="…")` is an option in the group Model.
in_model: Final = partial(typer.Option, rich_help_panel="Model")
in_data: Final = partial(typer.Option, rich_help_panel="Data")
in_path: Final = partial(typer.Option, rich_help_panel="Path")
in_selection: Final = partial(typer.Option, rich_help_panel="Selection")
in_run: Final = partial(typer.Option, rich_help_panel="Run")


def command(options: type[_Options], function: Callable[[_Options], None]) -> Callable[..., None]:
    """Return what `typer.Typer.command` takes: a function with a parameter per option.

    Args:
        options: a data class. A field is one option: its name, its default, and its type and help
            as `Annotated[type, typer.Option(...)]`.
        function: called with the options; its docstring is the command's help.
    """
    kinds = get_type_hints(options, include_extras=True)

    def call(**given: Any) -> None:
        function(options(**given))

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    parameters = [_parameter(field, kinds[field.name]) for field in fields(options)]  # type: ignore[arg-type]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _parameter(field: Field[Any], kind: Any) -> inspect.Parameter:
    if any(getattr(option, "parser", None) for option in kind.__metadata__):
        # The parser makes what the field holds; typer is content with few types otherwise.
        kind = Annotated[str, *kind.__metadata__]
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
    )
