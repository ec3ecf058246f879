"""Every configuration on every target, compiled without a device.

A table is committed for each tested version of Triton. Only cases whose key has changed since that
of the installed version was written are compiled, all with CI=true or LC_ENGINE_AOT=all; the others
are read from the table.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lc_engine.kernels.interpreter import interpreting

if interpreting():
    pytest.skip(
        "a process with TRITON_INTERPRET set cannot compile: run test_aot.py without it",
        allow_module_level=True,
    )

import torch
import triton
import triton.language as tl
from triton.compiler import ASTSource

from lc_engine.kernels import config
from lc_engine.kernels.aot.cases import Case, cases
from lc_engine.kernels.aot.compile import UNASKED, Report, compile_all, gpu_target, unasked
from lc_engine.kernels.aot.keys import FOLDER, key
from lc_engine.kernels.aot.table import changed, read_table, table_in
from lc_engine.kernels.dtypes import precision
from lc_engine.kernels.targets import TARGETS

pytestmark = pytest.mark.aot

TABLE = table_in(Path(__file__).with_name("aot_tables"))
COMMITTED = read_table(TABLE)
CASES = [case for target in TARGETS for case in cases(target)]
EVERYTHING = os.environ.get("CI") == "true" or os.environ.get("LC_ENGINE_AOT") == "all"
RENEW = "run python -m lc_engine.kernels.aot --write tests/kernels/aot_tables"
# Registers that are read and written outside of a product's loop, once per tile of classes at most
# (on AMD scalars, kept in a vector register): half the tile, which needs none, would cost more.
SPILLS = {
    ("3.9.0", "token_nll-magnitude-bf16-sm_90"): 24,
    ("3.9.0", "token_nll-whole-bf16-sm_90"): 8,
    ("3.9.0", "mlp_confidence-relu-H256-bf16-sm_100"): 8,
    ("3.9.0", "mlp_confidence-wide-bf16-sm_100"): 48,
    ("3.9.0", "mlp_confidence-gelu-given-fp32-gfx942"): 4,
    ("3.9.0", "mlp_confidence-gelu-given-fp32-gfx950"): 4,
}
needs_table = pytest.mark.skipif(
    not COMMITTED, reason=f"no table of triton {triton.__version__} is committed: {RENEW}"
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    to_compile = CASES if EVERYTHING else changed(CASES, COMMITTED)
    if not to_compile:
        return COMMITTED
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        compiled = compile_all(to_compile, workers=os.cpu_count() or 1)
    return COMMITTED | {report.name: report for report in compiled}


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@needs_table
def test_the_table_lists_what_is_shipped() -> None:
    assert set(COMMITTED) == {case.name for case in CASES}


@needs_table
def test_the_table_is_that_of_these_kernels() -> None:
    assert [case.name for case in changed(CASES, COMMITTED)] == [], f"{TABLE.name} is old: {RENEW}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fits_the_target(case: Case, reports: dict[str, Report]) -> None:
    report = reports[case.name]
    assert report.spills <= SPILLS.get((triton.__version__, case.name), 0)
    assert report.shared <= TARGETS[case.target].shared_bytes
    assert report.registers <= 256
    assert (report.tensor_ops > 0) == case.product
    if case.kernel != "path_sum":
        assert report.wide_loads > 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_product_asks_for_its_precision(case: Case, reports: dict[str, Report]) -> None:
    assert reports[case.name].unasked == 0


@needs_table
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_no_worse_than_the_committed_table(case: Case, reports: dict[str, Report]) -> None:
    report, before = reports[case.name], COMMITTED[case.name]
    for count in ("registers", "spills", "shared", "instructions"):
        assert getattr(report, count) <= getattr(before, count), count
    for count in ("tensor_ops", "wide_loads"):
        assert getattr(report, count) >= getattr(before, count), count


ALL_KERNELS = {case.kernel for case in CASES}
MASKED = {"linear_confidence", "premask", "mlp_confidence", "masked_linear", "token_nll"}
SCORES = {"linear_confidence", "premask", "mlp_confidence", "prototype_confidence"}


@pytest.mark.parametrize(
    ("file", "old", "new", "kernels"),
    [
        ("prototype_confidence", "squares += x * x", "squares += x", {"prototype_confidence"}),
        ("token_nll", "tl.log(s) - u / s", "tl.log(s) + u / s", {"token_nll"}),
        ("linear_confidence", "w.to(COMPUTE)", "w", {"linear_confidence", "premask"}),
        ("masked_linear", "k = tl.program_id(0)", "k = 0", {"masked_linear", "mlp_confidence"}),
        ("layer", "x < 0.0", "x <= 0.0", {"masked_linear", "mlp_confidence", "token_nll"}),
        ("online_softmax", "larger, s, z", "larger, z, s", SCORES),
        ("path_sum", "omega = omega[None, :]", "omega = omega[:, None]", SCORES | {"path_sum"}),
        ("philox", "word >> 8", "word >> 9", MASKED | {"apply_thresholds"}),
        ("saliency", "RANDOM = tl.constexpr(2)", "RANDOM = tl.constexpr(5)",
         MASKED | {"apply_thresholds"}),
        # Docstrings, comments and host code.
        ("saliency", '"""Return', '"""Get', set()),
        ("path_sum", "BLOCK_N = 256", "BLOCK_N = 128", set()),
        ("linear_confidence", "    # Bases are", "    # Addresses are", set()),
        ("mlp_confidence", "rows = max(1, samples)", "rows = max(2, samples)", set()),
        ("tiles", "Tile(128, 64, 1, 64, 8, 3)", "Tile(128, 64, 1, 64, 8, 4)", set()),
    ],
)  # fmt: skip
def test_an_edit_changes_the_keys_of_its_kernel_and_of_those_that_import_it(
    file: str, old: str, new: str, kernels: set[str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "kernels"))
    text = (copy / f"{file}.py").read_text()
    assert old in text
    (copy / f"{file}.py").write_text(text.replace(old, new))
    for kernel in ALL_KERNELS:
        own = [case for case in CASES if case.kernel == kernel]
        stale = [case for case in own if key(case, copy) != key(case)]
        assert stale == (own if kernel in kernels else []), kernel


def test_a_key_is_that_of_one_configuration_and_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({key(case) for case in CASES}) == len(CASES)
    case = CASES[0]
    assert key(replace(case)) == key(case)
    assert key(replace(case, warps=case.warps * 2)) != key(case)
    assert key(replace(case, constants=case.constants | {"BLOCK_N": 32})) != key(case)
    before = key(case)
    with monkeypatch.context() as patch:
        patch.setitem(config.OPTIONS, "enable_fp_fusion", False)
        assert key(case) != before
    monkeypatch.setattr(triton, "__version__", "0.0.0")
    assert key(case) != before


def test_only_what_has_changed_is_compiled() -> None:
    rows = {case.name: Report(case.name, key(case), *[0] * 7) for case in CASES}
    assert changed(CASES, rows) == []
    first, second, *_ = CASES
    rows[first.name] = replace(rows[first.name], key="0" * 16)
    del rows[second.name]
    assert changed(CASES, rows) == [first, second]


@triton.jit
def _products(x_ptr, out_ptr, PRECISION: tl.constexpr):  # noqa: N803
    index = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    x = tl.load(x_ptr + index)
    asked = tl.dot(x, x, input_precision=PRECISION)
    tl.store(out_ptr + index, tl.dot(asked, x))


@pytest.mark.parametrize("target", TARGETS)
def test_a_product_that_asks_for_no_precision_is_seen(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_F32_DEFAULT", UNASKED)
    asked = precision(TARGETS[target], torch.float32)
    types = {"x_ptr": "*fp32", "out_ptr": "*fp32", "PRECISION": "constexpr"}
    source = ASTSource(_products, types, {"PRECISION": asked})
    compiled = triton.compile(source, gpu_target(TARGETS[target]), config.OPTIONS)
    assert compiled.asm["ttir"].count("tt.dot") == 2
    assert unasked(compiled.asm["ttir"], asked) == 1
