"""Whose fault an error is: a row's, which gets a status; the run's, which ends; or a passing one.

The system's own errors (EIO, ENOENT of a file that was listed, EACCES, ESTALE, ETIMEDOUT, …) say
nothing about the data, so they never become a row's status: the read is tried again a few times,
then the run ends. Every reader decides by the functions of this module.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)

# Seconds before the second attempt at a read, the third, …
PAUSES = (0.1, 0.5, 2.0)
# Errors of the system that lie in the file or its name, and do not pass.
_PERMANENT = frozenset(
    {errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EOVERFLOW}
)
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


class Fault(Enum):
    """Whose fault an error is."""

    ROW = auto()
    RUN = auto()
    PASSING = auto()


class ConfigurationError(ValueError):
    """An error of every row, which stops the run instead of marking each row."""


class DataChangedError(ValueError):
    """A file that is not what it was when the run opened it, which ends the run."""


class ReadError(OSError):
    """A file that the system did not let us read, several times over, which ends the run."""

    def __init__(self, where: str | Path, cause: OSError, tried: int) -> None:
        name, reason = cause.filename or where, _reason(cause)
        super().__init__(
            f"{name} cannot be read: {reason} (tried {tried} times); once it can be read, the same "
            "command continues there"
        )


def fault_of(error: BaseException, *, listed: bool = True) -> Fault:
    """Return whose fault an error is that reading or decoding a row has raised.

    Args:
        error: what was raised.
        listed: whether the file was there when the data were opened. One that was not, in a folder
            that exists, is missing for good.
    """
    if isinstance(error, ConfigurationError | DataChangedError | ReadError):
        return Fault.RUN
    if out_of_memory(error):
        return Fault.RUN
    if not isinstance(error, OSError):
        return Fault.ROW
    if error.errno is None:  # a decoder's, such as Pillow's or Arrow's, unless of the network
        passing = isinstance(error, TimeoutError | ConnectionError)
        return Fault.PASSING if passing else Fault.ROW
    if error.errno in _PERMANENT:
        return Fault.ROW
    if error.errno in _MISSING and not listed and _folder_is_there(error):
        return Fault.ROW
    return Fault.PASSING


def _folder_is_there(error: OSError) -> bool:
    name = error.filename
    return isinstance(name, str) and Path(name).parent.is_dir()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's allocator of the host has no error class of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def patiently(read: Callable[[], _Result], where: str | Path, *, listed: bool = True) -> _Result:
    """Return what `read` returns, trying again where a passing error interrupts it.

    Args:
        read: can be called again.
        where: what is read, for the error.
        listed: see `fault_of`.

    Raises:
        ReadError: the error did not pass.
    """
    patience = _Patience(where, listed)
    while True:
        try:
            return read()
        except OSError as error:
            patience.wait(error)


def resumed(read: Callable[[int], Iterator[_Result]], where: str | Path) -> Iterator[_Result]:
    """Yield what `read(0)` yields; after a passing error what `read(items yielded)` does.

    Raises:
        ReadError: the error did not pass.
    """
    done, tried_at, patience = 0, 0, _Patience(where, True)
    while True:
        try:
            for item in read(done):
                yield item
                done += 1
        except OSError as error:
            if done > tried_at:
                tried_at, patience = done, _Patience(where, True)
            patience.wait(error)
        else:
            return


class _Patience:
    """The attempts at one read."""

    def __init__(self, where: str | Path, listed: bool) -> None:
        self._where, self._listed = where, listed
        self._tried = 0

    def wait(self, error: OSError) -> None:
        """Wait before the next attempt, or raise the error if there is none to be made."""
        if fault_of(error, listed=self._listed) is not Fault.PASSING:
            raise error
        self._tried += 1
        if self._tried > len(PAUSES):
            raise ReadError(self._where, error, self._tried) from error
        pause = PAUSES[self._tried - 1]
        _log.warning("%s: %s; trying again in %g s", self._where, _reason(error), pause)
        time.sleep(pause)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else describe_error(error)


def describe_error(error: BaseException) -> str:
    """Return an error as one line of UTF-8 that is the same in every process."""
    reason = " ".join(without_addresses(str(error)).split()) or "no reason given"
    return f"{type(error).__name__}: {reason}".encode(errors="backslashreplace").decode()


def without_addresses(text: str) -> str:
    """Return a repr without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
