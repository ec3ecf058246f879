"""What users of lc_engine may rely on; run as a program, it writes tests/public_api.txt."""

from __future__ import annotations

import dataclasses
import inspect
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lc_engine as lc
from lc_engine import ops, presets

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parents[1] / "public_api.txt"


def lines() -> Iterator[str]:
    """Yield a line for each public name, method and attribute, with its parameters."""
    for name in lc.__all__:
        if not isinstance(getattr(lc, name), types.ModuleType | str):
            yield from _lines(f"lc.{name}", getattr(lc, name))
    for name in ops.__all__:
        yield from _lines(f"lc.ops.{name}", getattr(ops, name))
    for name, value in vars(presets).items():
        ours = inspect.isfunction(value) and value.__module__ == presets.__name__
        if ours and not name.startswith("_"):
            yield from _lines(f"lc.presets.{name}", value)


def _lines(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, type):
        yield f"{name}{_parameters(value)}" if callable(value) else name
        return
    if issubclass(value, BaseException):
        yield name
        return
    yield f"{name}{_parameters(value)}"
    fields = (
        {field.name for field in dataclasses.fields(value)}
        if dataclasses.is_dataclass(value)
        else set()
    )
    ours = [one for one in value.__mro__ if one.__module__.partition(".")[0] == "lc_engine"]
    for member in sorted({name for one in ours for name in vars(one)} | fields):
        if member.startswith("_"):
            continue
        found = inspect.getattr_static(value, member, None)
        if isinstance(found, classmethod | staticmethod):
            found = found.__func__
        yield f"{name}.{member}{_parameters(found) if inspect.isfunction(found) else ''}"


def _parameters(function: Any) -> str:
    """Return names, kinds and defaults; types are the type checker's business."""
    signature = inspect.signature(function)
    bare = [
        one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()
    ]
    return str(inspect.Signature(bare))


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
