"""The C++ core's peak memory grows with N + C·D, never with N·C or K·C·D."""

import json
import subprocess
import sys

import pytest

from lc_engine.ops import contract

PROBE = """
import json, resource, sys
import torch
from lc_engine import ops

samples, classes, dims, sub_models = map(int, sys.argv[1:])
features = torch.randn(samples, dims)
weight = torch.randn(classes, dims)
labels = torch.randint(classes, (samples,))
thresholds = torch.linspace(0, 2, sub_models)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
ops.LinearPlan(weight[:4], None, thresholds)(features[:4], labels[:4] % 4)
before = peak()
scores = ops.LinearPlan(weight, None, thresholds)(features, labels)
assert scores.lc.isfinite().all()
print(json.dumps({"grown": peak() - before}))
"""


@pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")
def test_peak_memory_of_a_large_head_and_many_samples():
    samples, classes, dims, sub_models = 100_000, 21_841, 16, 4
    sizes = map(str, (samples, classes, dims, sub_models))
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *sizes], capture_output=True, text=True, check=True
    )
    grown = json.loads(result.stdout)["grown"]
    # The plan's weights (8.5 bytes each and shell ends), the K·N log probabilities and their sums.
    linear = 40 * classes * dims + 60 * sub_models * samples
    assert grown < linear + 32e6
    assert grown < samples * classes * 4 / 50, "a fiftieth of one (N, C) matrix"
