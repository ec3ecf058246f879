"""The programs of docs/embedding.md, where only torch, triton and numpy can be imported."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import lc_engine as lc
from helpers.frameworks import run_command
from helpers.structure import FLOOR_OF

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "embedding.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)

# Runs programs one after the other, each in a namespace of its own, where of all that pip installed
# only `allowed` can be imported. Prints {name: [output, error or ""]}.
RUNNER = """
import contextlib, io, json, sys, traceback
installed, allowed = set({installed!r}), set({allowed!r})
class Blocking:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        top = name.partition(".")[0]
        hidden = top in installed and top not in allowed
        return None if hidden else self.finder.find_spec(name, *rest)
sys.meta_path[:] = [Blocking(finder) for finder in sys.meta_path]
results = {{}}
for name, program in {programs!r}.items():
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(program, {{"__name__": "__main__"}})
        except BaseException:
            error = traceback.format_exc()
    results[name] = [printed.getvalue().strip(), error]
print(json.dumps(results))
"""
BLOCKED = """
try:
    import pyarrow
except ModuleNotFoundError as error:
    print(error)
"""
PACKAGE = """
import sys
before = set(sys.modules)
import lc_engine
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
OPERATORS = """
import sys
import torch
from lc_engine import ops
weight, labels = torch.ones(3, 4), torch.zeros(5, dtype=torch.int64)
ops.linear_confidence(torch.ones(5, 4), weight, None, labels, torch.zeros(2))
ours = {name.split(".")[1] for name in sys.modules if name.startswith("lc_engine.")}
print(torch.__version__, *sorted(ours))
"""
LOOP_CHECK = """
want = lc.Scorer(head, head="linear", path=path, masking=masking).score_batch((features, labels))
thresholds = masking.thresholds({"weight": head.weight}, path)[:, 0]
again = ops.LinearPlan(head.weight, head.bias, thresholds, path_weights=torch.tensor(path.weights))
print(float((again(features, labels).lc - want.lc).abs().max()), len(set(keep.tolist())))
"""


def closure(*names: str) -> set[str]:
    """Top-level modules of distributions and of their dependencies, without extras."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        pending += [re.split(r"[^\w.-]", one)[0] for one in requirements if "extra ==" not in one]
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if any(re.sub(r"[-_.]+", "-", owner).lower() in found for owner in owners)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Real digits of 8 × 8 pixels."""
    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    np.save(folder / "features.npy", (x / 16).astype(np.float32))
    np.save(folder / "labels.npy", y.astype(np.int64))
    return folder


@pytest.fixture(scope="module")
def output(folder) -> Callable[[str], str]:
    """A function that returns what a program printed.

    All run in one process, which imports torch once; the first ones need fresh modules.
    """
    assert len(PROGRAMS) == 2
    programs = {
        "blocked": BLOCKED,
        "package": PACKAGE,
        "operators": OPERATORS,
        "loop": "import torch\ntorch.manual_seed(0)\n" + PROGRAMS[0] + LOOP_CHECK,
        "network": PROGRAMS[1],
    }
    installed = set(importlib.metadata.packages_distributions()) - {"lc_engine"}
    runner = RUNNER.format(
        installed=sorted(installed),
        allowed=sorted(closure("torch", "triton", "numpy")),
        programs=programs,
    )
    printed = run_command([sys.executable, "-c", runner], folder)
    results = json.loads(printed.partition("\n")[0])

    def of(name: str) -> str:
        text, error = results[name]
        assert not error, error
        return str(text)

    return of


def test_only_the_allowed_packages_can_be_imported(output):
    assert "pandas" not in closure("torch", "triton", "numpy")
    assert output("blocked") == "No module named 'pyarrow'"
    assert output("operators").split()[0] == torch.__version__


def test_a_foreign_loop_re_scores_with_its_head(output):
    accuracy, numbers = output("loop").splitlines()
    found = re.fullmatch(r"539 of 1797 rows, accuracy (\d\.\d+)", accuracy)
    assert found is not None
    assert float(found[1]) > 0.85
    difference, kept = numbers.split()
    assert float(difference) < 1e-6
    assert kept == "539"


def test_a_foreign_network_becomes_its_sub_models(output, folder):
    features, labels = (
        torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("features", "labels")
    )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    masking = lc.Masking(weights="all")
    scorer = lc.Scorer(
        network, head="linear", path=lc.LearningPath.geometric(5, 0.2), masking=masking
    )
    want = float(scorer.score_batch((features, labels)).lc.mean())
    assert output("network") == f"mean learning complexity {want:.4f}"


def test_the_operators_import_nothing_above_them(output):
    rooms = set(output("operators").split()[1:])
    assert "ops" in rooms
    assert rooms - {"ops"} <= {room for room in FLOOR_OF if FLOOR_OF[room] > FLOOR_OF["ops"]}


def test_the_package_alone_imports_nothing(output):
    third_party = set(output("package").split()) - set(sys.stdlib_module_names)
    assert third_party == {"lc_engine"}
