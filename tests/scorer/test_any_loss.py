"""Any loss: the examples of docs/any-loss.md against a plain loop in float64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import lc_engine as lc
from helpers.masked_weights import largest_kept

PAGE = (Path(__file__).parents[2] / "docs" / "any-loss.md").read_text()
EXAMPLES = dict(re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```$", PAGE, re.M | re.S))


def double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    return {name: double(part) for name, part in value.items()}


def loop(model: nn.Module, rows: Any, nll: Any, path: lc.LearningPath, head: str) -> torch.Tensor:
    """log p (K, N): masks of the largest weights of all linear and convolution modules but one."""
    model = model.double().eval()
    weights = {
        f"{name}.weight": module._parameters["weight"].detach()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        and name != head
        and module._parameters.get("weight") is not None
    }
    found = []
    for masked in largest_kept(weights, path.capacities):
        for value, target in rows:
            inputs = {n: v[None] for n, v in value.items()} if isinstance(value, dict) else value
            args = () if isinstance(inputs, dict) else (double(inputs)[None],)
            kwargs = double(inputs) if isinstance(inputs, dict) else {}
            with torch.no_grad():
                outputs = functional_call(model, masked, args, kwargs)
                own = [double(target)] if isinstance(target, dict) else double(target)[None]
                found.append(-nll(outputs, own))
    return torch.cat(found).view(len(path), len(rows)).double()


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_scores_as_a_plain_loop_in_float64(title):
    space: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(EXAMPLES[title].replace(", rows)\n", ", rows, return_path=True)\n"), space)
    scores, model = space["scores"], space["model"]
    assert scores.status_counts() == {"ok": len(space["rows"])}
    head = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    want = loop(model, space["rows"], space["nll"], lc.LearningPath.gauss(8), head)
    found = scores.column("path_log_probs").T
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    omega = np.array(lc.LearningPath.gauss(8).weights)
    np.testing.assert_allclose(scores.column("lc"), omega @ want.exp().numpy(), rtol=1e-5)


def test_the_page_has_an_example_of_each_kind():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda outputs, targets: outputs.sum(), r"got torch.float32 of shape \(\) on cpu: sum or"),
        (lambda outputs, targets: outputs.sum(1).long(), r"got torch.int64 of shape \(3,\) on cpu"),
        (lambda outputs, targets: outputs.sum(1).to("meta"), r"of shape \(3,\) on meta"),
        (lambda outputs, targets: outputs.sum(1).tolist(), "got list"),
    ],
    ids=["a sum", "integers", "no values", "a list"],
)
def test_a_function_that_returns_something_else_is_refused(fn, says):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    rows = [(torch.randn(4), torch.zeros(())) for _ in range(3)]
    with pytest.raises(ValueError, match=f"must return a negative log-likelihood per row.*{says}"):
        lc.score(lc.Scorer(model, head=lc.Loss(fn)), rows, progress=False)


def test_values_beyond_any_likelihood_have_a_status():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    rows = [(torch.randn(4), torch.tensor(value)) for value in (0.0, -1000.0, float("nan"))]

    def fn(outputs, targets):
        return outputs.square().sum(1) + targets

    table = lc.score(lc.Scorer(model, head=lc.Loss(fn)), rows, progress=False)
    assert table.column("status").tolist() == ["ok", "non_finite", "non_finite"]
