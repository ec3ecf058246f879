"""The instruction sets of the C++ core, switched within the process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

from lc_engine.ops import choices, contract, processor

if TYPE_CHECKING:
    from collections.abc import Iterator

# Those that this processor has, from the least to the best; none without the core.
ISAS: list[str] = contract.native().isas() if contract.native() else []


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Run the core on an instruction set for a while."""
    before = contract.native().set_isa(isa)
    try:
        yield
    finally:
        contract.native().set_isa(before)


@contextmanager
def products_on_amx() -> Iterator[None]:
    """Choose as on a processor with AMX for a while; heads of any size become dense products.

    torch multiplies by whatever the processor has: slower, with sums of the same precision.
    """
    found = processor.cpu_features()._replace(amx_bf16=True, amx_int8=True)
    with (
        mock.patch.object(choices, "cpu_features", return_value=found),
        mock.patch.object(choices, "head_is_dense", return_value=True),
    ):
        yield
