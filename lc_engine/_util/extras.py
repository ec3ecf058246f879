"""Optional dependencies: imported where they are needed, with an error that names the extra."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """A package of an optional extra is not installed; the text says what to install."""


def require(module: str, extra: str) -> Any:
    """Import `module`, which the extra `lc_engine[extra]` installs.

    Args:
        module: dotted name, such as "pyarrow.parquet".
        extra: name of the extra in pyproject.toml, such as "table".

    Returns:
        The module. Typed as Any, because most of these packages ship no types.

    Raises:
        MissingExtraError: the package is not installed. An installed package that fails to import
            raises its own error.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f'{package} is not installed; it comes with: pip install "lc_engine[{extra}]"',
            name=package,
        ) from None
