"""What setup.py checks of every kernel's object, for all instruction sets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from setuptools import Distribution

pytest.importorskip("pybind11")

GOOD = """0000000000001a40 T lc::avx2::attention(lc::AttentionJob const&, long, float*)
0000000000000000 r lc::avx2::(anonymous namespace)::kOrder
0000000000000350 t void lc::avx2::(anonymous namespace)::run<1>(lc::AttentionJob const&)
"""


@pytest.fixture(scope="module")
def build() -> ModuleType:
    path = Path(__file__).parents[2] / "setup.py"
    spec = importlib.util.spec_from_file_location("build_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_symbols_of_the_instruction_set_and_local_ones_pass(build: ModuleType) -> None:
    build.check_symbols(GOOD, "attention", "avx2")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00 W lc::avx2::widen(float)", r"weak symbol lc::avx2::widen\(float\)"),
        ("00 V vtable for lc::avx2::Row", "weak symbol vtable for lc::avx2::Row"),
        ("00 u lc::avx2::table", "weak symbol lc::avx2::table"),
        ("00 v lc::avx2::table", "weak symbol lc::avx2::table"),
        ("00 T lc::sum(float const*)", r"lc::sum\(float const\*\) outside of lc::avx2"),
        ("00 T lc::avx512::sum()", r"lc::avx512::sum\(\) outside of lc::avx2"),
        ("00 B counter", "counter outside of lc::avx2"),
        ("00 R lc::kPowers", "lc::kPowers outside of lc::avx2"),
    ],
)
def test_what_the_linker_could_share_is_named(build: ModuleType, line: str, message: str) -> None:
    with pytest.raises(build.StraySymbolError, match=f"attention for avx2 has .*{message}"):
        build.check_symbols(GOOD + line + "\n", "attention", "avx2")


def test_an_object_without_a_kernel_is_refused(build: ModuleType) -> None:
    local = "\n".join(GOOD.splitlines()[1:])
    with pytest.raises(build.StraySymbolError, match="attention for avx2 has no global symbol"):
        build.check_symbols(local, "attention", "avx2")


def test_every_kernel_of_every_instruction_set_is_checked(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a compiler that compiles nothing, and an `nm` that knows of one weak symbol."""
    monkeypatch.chdir(Path(build.__file__).parent)
    checked = []

    def nothing_weak(compiled: str) -> str:
        isa = Path(compiled).relative_to(tmp_path).parts[0]
        checked.append((isa, Path(compiled).parent.name))
        return f"00 T lc::{isa}::kernel()\n"

    command = build.BuildNative(Distribution())
    command.build_temp, command.force = str(tmp_path), True
    command.compiler = SimpleNamespace(
        object_filenames=lambda sources, output_dir: [f"{output_dir}/{sources[0][:-4]}.o"],
        compile=lambda *_, **__: None,
    )
    monkeypatch.setattr(build, "symbols_of", nothing_weak)
    for isa in build.ISA_FLAGS:
        for kernel in build.KERNELS:
            command.object_of(build.native, kernel, isa)
    assert sorted(checked) == sorted(
        (isa, kernel.parent.name) for isa in build.ISA_FLAGS for kernel in build.KERNELS
    )
    assert len(build.KERNELS) > 10
    monkeypatch.setattr(build, "symbols_of", lambda _: "00 W std::max(float, float)\n")
    with pytest.raises(build.StraySymbolError, match=r"weak symbol std::max"):
        command.build_extension(build.native)
