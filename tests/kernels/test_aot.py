"""Every configuration on every target, compiled without a device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if os.environ.get("TRITON_INTERPRET", "0") not in ("0", "", "false"):
    pytest.skip(
        "a process with TRITON_INTERPRET set cannot compile: run test_aot.py without it",
        allow_module_level=True,
    )

import triton

from lc_engine.kernels import config
from lc_engine.kernels.aot import cases as aot

pytestmark = pytest.mark.aot

TABLE = Path(__file__).with_name("aot_table.csv")
VERSION, COMMITTED = aot.read_table(TABLE)
CASES = [case for target in config.TARGETS for case in aot.cases(target)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, aot.Report]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        made = aot.compile_all(CASES, workers=min(2, os.cpu_count() or 1))
    return {report.name: report for report in made}


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_table_lists_what_is_shipped() -> None:
    assert set(COMMITTED) == {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fits_the_target(case: aot.Case, reports: dict[str, aot.Report]) -> None:
    report = reports[case.name]
    assert report.spills == 0
    assert report.shared <= config.TARGETS[case.target].shared_bytes
    assert report.registers <= 256
    assert (report.tensor_ops > 0) == case.product
    if case.kernel != "path_sum":
        assert report.wide_loads > 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_no_worse_than_the_committed_table(
    case: aot.Case, reports: dict[str, aot.Report]
) -> None:
    if triton.__version__ != VERSION:
        pytest.skip(
            f"aot_table.csv was made with triton {VERSION}, this is {triton.__version__}: renew it "
            f"with python -m lc_engine.kernels.aot --write {TABLE.name}"
        )
    report, before = reports[case.name], COMMITTED[case.name]
    for count in ("registers", "spills", "shared", "instructions"):
        assert getattr(report, count) <= getattr(before, count), count
    for count in ("tensor_ops", "wide_loads"):
        assert getattr(report, count) >= getattr(before, count), count
