"""Two losses have one digest where they compute the same."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine.heads.loss_digest import loss_digest

SCALE = 2.0


def around(value):
    return lambda outputs, targets: (outputs - targets).square().sum(1) * value


def by_default(value):
    def fn(outputs, targets, scale=value):
        return outputs.sum(1) * scale

    return fn


def of_keyword(value):
    def fn(outputs, targets, *, scale=value):
        return outputs.sum(1) * scale

    return fn


def partial(value):
    return functools.partial(weighted, scale=value)


def weighted(outputs, targets, scale):
    return outputs.sum(1) * scale


def through_another(value):
    inner = around(value)
    return lambda outputs, targets: inner(outputs, targets) + 1


def wrapped(value):
    inner = around(0.0)

    @functools.wraps(inner)
    def outer(outputs, targets):
        return inner(outputs, targets) * value

    return outer


@dataclass
class Called:
    value: object

    def __call__(self, outputs, targets):
        return outputs.sum(1) * self.value


class Method:
    def __init__(self, value):
        self.value = value

    def nll(self, outputs, targets):
        return outputs.sum(1) * self.value


FORMS = [
    around,
    by_default,
    of_keyword,
    partial,
    through_another,
    wrapped,
    Called,
    lambda value: Method(value).nll,
]
PAIRS = [
    (1.0, 2.0),
    (1, 1.0),
    ("a", "b"),
    (None, 0),
    (torch.ones(2), torch.zeros(2)),
    (torch.ones(2), torch.ones(2, 1)),
    (torch.tensor(1.0).bfloat16(), torch.tensor(1.0)),
    ([1, torch.ones(1)], [1, torch.zeros(1)]),
    ({"a": 1}, {"b": 1}),
    ({1, 2}, {1, 3}),
    (torch.ones(2).numpy(), torch.zeros(2).numpy()),
    (nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.2)),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: type(pair[0]).__name__)
def test_values_from_outside_the_text(form, pair):
    one, other = (loss_digest(form(value)) for value in pair)
    assert one == loss_digest(form(pair[0]))
    assert one[1] == other[1] == {}
    assert one[0] != other[0]


def test_a_global_variable_in_an_inner_function(monkeypatch):
    def fn(outputs, targets):
        return torch.stack([row * SCALE for row in outputs])

    before = loss_digest(fn)
    assert before == loss_digest(fn)
    monkeypatch.setitem(fn.__globals__, "SCALE", 3.0)
    assert loss_digest(fn)[0] != before[0]


def test_a_weight_of_a_module():
    torch.manual_seed(0)
    own = nn.Linear(2, 2)
    before = loss_digest(around(own))
    with torch.no_grad():
        own.weight[0, 0] += 1
    assert loss_digest(around(own))[0] != before[0]
    assert before[1] == {}


def test_a_function_that_calls_itself():
    def fn(outputs, targets):
        return fn(outputs, targets)

    assert loss_digest(fn)[1] == {}


def test_a_run_with_what_cannot_be_compared_is_not_another_s(tmp_path, monkeypatch):
    rows = [(torch.randn(4), torch.tensor(0.0)) for _ in range(3)]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    lock = threading.Lock()

    def fn(outputs, targets):
        with lock:
            return outputs.square().sum(1)

    lc.score(lc.Scorer(model, head=lc.Loss(fn)), rows, tmp_path / "out", progress=False)
    lc.score(lc.Scorer(model, head=lc.Loss(fn)), rows, tmp_path / "out", progress=False)
    monkeypatch.setattr("lc_engine.heads.loss_digest._PROCESS", "another")
    with pytest.raises(ValueError, match=r"another run .*loss_not_compared\.lock: '_thread\.lock"):
        lc.score(lc.Scorer(model, head=lc.Loss(fn)), rows, tmp_path / "out", progress=False)


def test_a_run_with_another_value_is_refused(tmp_path):
    rows = [(torch.randn(2), torch.zeros(2)) for _ in range(3)]
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    first, second = (lc.Scorer(model, head=lc.Loss(around(value))) for value in (1.0, 2.0))
    lc.score(first, rows, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=r"another run \(head\.loss_digest"):
        lc.score(second, rows, tmp_path / "out", progress=False)
