"""Which instructions a process may use, and what limits them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine.ops import contract, processor

if TYPE_CHECKING:
    from collections.abc import Iterator


VARIABLES = ("LC_ENGINE_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A processor with AMX, as torch finds one; no variable limits it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: True)
    processor._library_has_tiles.cache_clear()
    yield monkeypatch
    processor._library_has_tiles.cache_clear()


def has_amx() -> tuple[bool, bool]:
    found = processor.cpu_features()
    return found.amx_bf16, found.amx_int8


def test_amx_is_found(amx: pytest.MonkeyPatch) -> None:
    assert has_amx() == (True, True)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_fp16"),
        ("DNNL_MAX_CPU_ISA", "AVX2"),
        ("LC_ENGINE_ISA", "avx512_bf16"),
    ],
)
def test_a_limit_below_amx_rules_it_out(amx: pytest.MonkeyPatch, variable: str, value: str) -> None:
    amx.setenv(variable, value)
    assert has_amx() == (False, False)


@pytest.mark.parametrize("value", ["", "DEFAULT", "AVX512_CORE_AMX", "AVX10_1_512_AMX", "unknown"])
def test_a_limit_that_is_none_leaves_amx(amx: pytest.MonkeyPatch, value: str) -> None:
    amx.setenv("ONEDNN_MAX_CPU_ISA", value)
    assert has_amx() == (True, True)


def test_a_system_that_refuses_tiles_has_no_amx(amx: pytest.MonkeyPatch) -> None:
    amx.setattr(torch.cpu, "_init_amx", lambda: False)
    assert has_amx() == (False, False)


def test_a_processor_without_tiles_is_not_asked_for_them(amx: pytest.MonkeyPatch) -> None:
    amx.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert has_amx() == (False, False)


def test_the_core_names_what_it_multiplies(isa: str) -> None:
    found = processor.cpu_features()
    assert found.avx512_bf16 == (isa == "avx512_bf16")
    assert found.avx512_vnni == contract.native().multiplies_int8()


def test_bfloat16_is_multiplied_where_an_instruction_does(isa: str, monkeypatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(processor, "_library_has_tiles", lambda: False)
    assert processor.multiplies_bfloat16(cpu) == (isa == "avx512_bf16")
    monkeypatch.delenv("LC_ENGINE_ISA", raising=False)
    monkeypatch.setattr(processor, "_library_has_tiles", lambda: True)
    assert processor.multiplies_bfloat16(cpu)


@pytest.mark.parametrize("has", [True, False])
def test_without_the_core_torch_is_asked_whether_it_multiplies_bfloat16(monkeypatch, has) -> None:
    monkeypatch.setattr(contract, "native", lambda: None)
    monkeypatch.setattr(processor, "_library_has_tiles", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert processor.multiplies_bfloat16(torch.device("cpu")) == has
    assert not processor.multiplies_bfloat16(torch.device("meta"))
