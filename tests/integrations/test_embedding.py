"""The programs of docs/embedding.md, where nothing but torch, triton and numpy can be imported."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import lc_engine as lc

DOCS = Path(__file__).parents[2] / "docs" / "embedding.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)

# Hides every module that pip installed, but for those named; standard library and lc_engine pass.
BLOCKER = """
import sys
installed, allowed = set({installed!r}), set({allowed!r})
class Blind:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        top = name.partition(".")[0]
        hidden = top in installed and top not in allowed
        return None if hidden else self.finder.find_spec(name, *rest)
sys.meta_path[:] = [Blind(finder) for finder in sys.meta_path]
"""


def closure(*names: str) -> set[str]:
    """Top-level modules of distributions and of all that they need, extras left out."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        waiting += [re.split(r"[^\w.-]", one)[0] for one in needed if "extra ==" not in one]
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if any(re.sub(r"[-_.]+", "-", owner).lower() in found for owner in owners)
    }


def run(program: str, folder: Path) -> str:
    installed = set(importlib.metadata.packages_distributions()) - {"lc_engine"}
    blocker = BLOCKER.format(
        installed=sorted(installed), allowed=sorted(closure("torch", "triton", "numpy"))
    )
    done = subprocess.run(
        [sys.executable, "-c", blocker + program], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Real digits of 8 × 8 pixels."""
    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    np.save(folder / "features.npy", (x / 16).astype(np.float32))
    np.save(folder / "labels.npy", y.astype(np.int64))
    return folder


def test_the_blocker_blocks(folder):
    assert "pandas" not in closure("torch", "triton", "numpy")
    blocked = "\ntry:\n    import pyarrow\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert run(blocked, folder) == "No module named 'pyarrow'"
    assert run("import torch, numpy; print(torch.__version__)", folder) == torch.__version__


def test_the_page_has_two_programs():
    assert len(PROGRAMS) == 2


def test_a_foreign_loop_re_scores_with_its_head(folder):
    program = "import torch\ntorch.manual_seed(0)\n" + PROGRAMS[0]
    check = """
want = lc.Scorer(head, head="linear", path=path, masking=masking).score_batch((features, labels))
thresholds = masking.thresholds({"weight": head.weight}, path)[:, 0]
again = ops.LinearPlan(head.weight, head.bias, thresholds, path_weights=torch.tensor(path.weights))
print(float((again(features, labels).lc - want.lc).abs().max()), len(set(keep.tolist())))
"""
    said, numbers = run(program + check, folder).splitlines()
    found = re.fullmatch(r"539 of 1797 rows, accuracy (\d\.\d+)", said)
    assert found is not None
    assert float(found[1]) > 0.85
    difference, kept = numbers.split()
    assert float(difference) < 1e-6
    assert kept == "539"


def test_a_foreign_network_becomes_its_sub_models(folder):
    said = run(PROGRAMS[1], folder)
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
    assert said == f"mean learning complexity {want:.4f}"


def test_the_operators_import_nothing_above_them(folder):
    code = """
import sys
import torch
from lc_engine import ops
weight, labels = torch.ones(3, 4), torch.zeros(5, dtype=torch.int64)
ops.linear_confidence(torch.ones(5, 4), weight, None, labels, torch.zeros(2))
ours = {name for name in sys.modules if name.startswith("lc_engine")}
print(*sorted({".".join(name.split(".")[:2]) for name in ours}))
"""
    assert run(code, folder).split() == ["lc_engine", "lc_engine._native", "lc_engine.ops"]


def test_the_package_alone_imports_nothing(folder):
    code = """
import sys
before = set(sys.modules)
import lc_engine
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    third_party = set(run(code, folder).split()) - set(sys.stdlib_module_names)
    assert third_party == {"lc_engine"}
