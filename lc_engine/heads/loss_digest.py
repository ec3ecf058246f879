"""Whether two runs compute the same loss: the text of a function, and the values that it takes."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import uuid
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.dtype)
# Part of what cannot be compared, so that no other process takes it for the same.
_PROCESS: Final = uuid.uuid4().hex[:12]


def loss_digest(fn: Any) -> tuple[str, dict[str, str]]:
    """Return a digest of a function, and what is not in it.

    In it are its text and that of functions and classes of its own module that it uses, defaults,
    and the values of variables around it, global ones too: numbers, texts, tensors, arrays, modules
    of torch, objects of dataclasses and of its own module, and lists and mappings of such. Of other
    modules' functions and classes it is their names.

    Args:
        fn: a function, a `functools.partial`, or an object that is called.

    Returns:
        The digest; by variable, what cannot be compared, which differs in each process.
    """
    own = fn
    while isinstance(own, functools.partial):
        own = own.func
    if isinstance(own, MethodType):
        own = own.__self__
    is_named = isinstance(own, FunctionType | BuiltinFunctionType | type)
    digest = _Digest((own if is_named else type(own)).__module__)
    digest.add("loss", fn)
    return digest.value.hexdigest(), digest.not_compared


class _Digest:
    """A hash that values are added to.

    Args:
        home: module whose functions and classes are read.
    """

    def __init__(self, home: str | None) -> None:
        self.value = hashlib.sha256()
        self.not_compared: dict[str, str] = {}
        self._home = home
        self._seen: dict[int, Any] = {}  # held, so that no other object gets its address

    def add(self, name: str, value: Any) -> None:
        """Add a value, and whatever it refers to."""
        self._put(name, type(value).__qualname__)
        if isinstance(value, (*_PLAIN, torch.device)):
            self._put(repr(value))
        elif isinstance(value, ModuleType):
            self._put(value.__name__)
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            self._add_object(name, value)

    def _add_object(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.layout == torch.strided:
            self._put(str(value.dtype), str(tuple(value.shape)))
            flat = value.detach().cpu().contiguous().flatten()
            self.value.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._put(str(value.dtype), str(value.shape))
            self.value.update(value.tobytes())
        elif isinstance(value, list | tuple):
            for i, part in enumerate(value):
                self.add(f"{name}[{i}]", part)
        elif isinstance(value, dict):
            for key, part in value.items():
                self.add(f"{name}[{key!r:.40}]", part)
        elif isinstance(value, set | frozenset) and all(isinstance(one, _PLAIN) for one in value):
            self._put(*sorted(map(repr, value)))
        elif isinstance(value, functools.partial):
            self.add(name, [value.func, value.args, value.keywords])
        elif isinstance(value, MethodType):
            self.add(name, [value.__func__, value.__self__])
        elif isinstance(value, FunctionType):
            self._add_function(name, value)
        elif isinstance(value, BuiltinFunctionType | type):
            self._add_named(name, value)
        elif isinstance(value, nn.Module) or dataclasses.is_dataclass(value) or self._is_own(value):
            self._add_named(name, type(value))
            self.add(name, getattr(value, "__dict__", None))
        else:
            self._leave(name, f"{type(value).__module__}.{type(value).__qualname__}")

    def _add_function(self, name: str, function: FunctionType) -> None:
        self._add_named(name, function)
        if function.__module__ != self._home:
            return
        self.add(name, function.__defaults__)
        self.add(name, function.__kwdefaults__)
        for variable in sorted(_globals(function.__code__) & function.__globals__.keys()):
            self.add(variable, function.__globals__[variable])
        variables = function.__code__.co_freevars
        for variable, cell in zip(variables, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                self._leave(variable, "a variable without a value")
            else:
                self.add(variable, content)

    def _add_named(self, name: str, value: Any) -> None:
        self._put(f"{value.__module__}.{value.__qualname__}")
        if value.__module__ == self._home and not isinstance(value, BuiltinFunctionType):
            try:
                # Of the code: a function that wraps another gives the other's text.
                self._put(inspect.getsource(getattr(value, "__code__", value)))
            except (OSError, TypeError):
                self._leave(name, "a text that is in no file")

    def _is_own(self, value: Any) -> bool:
        return type(value).__module__ == self._home

    def _leave(self, name: str, what: str) -> None:
        self.not_compared[name] = f"{what}, of process {_PROCESS}"

    def _put(self, *texts: str) -> None:
        for text in texts:
            self.value.update(f"{len(text)}:{text}".encode())


def _globals(code: CodeType) -> set[str]:
    """Return the names of global variables that a code reads, and functions within it."""
    found = {
        str(step.argval)
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = [_globals(const) for const in code.co_consts if isinstance(const, CodeType)]
    return found.union(*inner)
