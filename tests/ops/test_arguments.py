"""What an operator does with an argument on `meta`, an unsigned label or a list of numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lc_engine import ops

UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def arguments(operator: str) -> dict[str, object]:
    """Return arguments of an operator, tensors or lists of them, small and valid."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    thresholds = torch.tensor([0.1, 0.5])
    labels, omega = torch.tensor([1, 0, 2, 1]), torch.tensor([0.25, 0.75])
    return {
        "linear_confidence": {
            "features": draw(4, 5), "weight": draw(3, 5), "bias": draw(3), "labels": labels,
            "thresholds": thresholds, "path_weights": omega, "saliency": draw(3, 5).abs(),
        },
        "mlp_confidence": {
            "features": draw(4, 5), "weights": [draw(6, 5), draw(3, 6)],
            "biases": [draw(6), draw(3)], "labels": labels, "thresholds": [thresholds, thresholds],
            "path_weights": omega, "saliency": [draw(6, 5).abs(), draw(3, 6).abs()],
        },
        "prototype_confidence": {
            "features": draw(2, 4, 5), "prototypes": draw(3, 5), "labels": labels,
            "path_weights": omega,
        },
        "masked_linear": {
            "x": draw(2, 4, 5), "weight": draw(3, 5), "bias": draw(3), "thresholds": thresholds,
            "saliency": draw(3, 5).abs(),
        },
        "token_nll": {
            "hidden": draw(2, 4, 5), "vocab_weight": draw(3, 5), "targets": labels,
            "bias": draw(3), "thresholds": thresholds, "saliency": draw(3, 5).abs(),
        },
        "attention": {"q": draw(2, 4, 5), "k": draw(2, 4, 5), "v": draw(2, 4, 5)},
        "apply_thresholds": {
            "pristine": [draw(3, 5), draw(4)], "live": [torch.zeros(3, 5), torch.zeros(4)],
            "threshold": [0.1, 0.5], "saliency": [draw(3, 5).abs(), draw(4).abs()],
        },
    }[operator]  # fmt: skip


OPERATORS = {
    "linear_confidence": (
        "features", "weight", "bias", "labels", "thresholds", "path_weights", "saliency",
    ),
    "mlp_confidence": (
        "features", "weights", "biases", "labels", "thresholds", "path_weights", "saliency",
    ),
    "prototype_confidence": ("features", "prototypes", "labels", "path_weights"),
    "masked_linear": ("x", "weight", "bias", "thresholds", "saliency"),
    "token_nll": ("hidden", "vocab_weight", "targets", "bias", "thresholds", "saliency"),
    "attention": ("q", "k", "v"),
    "apply_thresholds": ("pristine", "live", "saliency"),
}  # fmt: skip
CASES = [f"{operator}.{name}" for operator, names in OPERATORS.items() for name in names]


def replaced(value, change):
    """Return a tensor changed, or a list whose last tensor is."""
    return [*value[:-1], change(value[-1])] if isinstance(value, list) else change(value)


@pytest.mark.parametrize("case", CASES)
def test_one_argument_on_meta_is_refused_by_name(case):
    operator, name = case.split(".")
    given = arguments(operator)
    call = getattr(ops, operator)
    call(**given)
    given[name] = replaced(given[name], lambda tensor: tensor.to("meta"))
    with pytest.raises(ValueError, match=r"^\S+ is on .*meta"):
        call(**given)


@pytest.mark.parametrize("case", CASES)
def test_one_argument_on_meta_is_refused_behind_the_checks(case, monkeypatch):
    """The registered operator is called without the checks of the public function."""
    operator, name = case.split(".")
    given = arguments(operator)
    packet = getattr(torch.ops.lc_engine, operator)
    seen = []
    schema = packet.default._schema

    class Recorder:
        def __getattr__(self, _):
            return lambda *values: seen.append(values) or packet(*values)

    monkeypatch.setattr(torch.ops, "lc_engine", Recorder())
    getattr(ops, operator)(**given)
    monkeypatch.undo()
    values = dict(zip([one.name for one in schema.arguments], seen[0], strict=True))
    values[name] = replaced(values[name], lambda tensor: tensor.to("meta"))
    with pytest.raises(ValueError, match=rf"{name}.* on meta"):
        packet(**values)


@pytest.mark.parametrize("operator", OPERATORS)
def test_all_arguments_on_meta_give_shapes(operator):
    given = arguments(operator)
    for name in OPERATORS[operator]:
        value = given[name]
        on_meta = [t.to("meta") for t in value] if isinstance(value, list) else value.to("meta")
        if name not in ("thresholds", "path_weights"):
            given[name] = on_meta
    found = getattr(ops, operator)(**given)
    for tensor in (found if isinstance(found, tuple) else (found,)) or ():
        assert tensor is None or tensor.is_meta


@pytest.mark.parametrize("dtype", UNSIGNED, ids=str)
@pytest.mark.parametrize(
    "operator", ["linear_confidence", "mlp_confidence", "prototype_confidence", "token_nll"]
)
def test_unsigned_labels_are_labels_like_others(operator, dtype):
    given, call = arguments(operator), getattr(ops, operator)
    name = "targets" if operator == "token_nll" else "labels"
    right = call(**given)
    given[name] = given[name].to(dtype)
    found = call(**given)
    assert torch.equal(found[0], right[0])
    given[name] = torch.from_numpy(np.array([1, 0, 200, 1])).to(dtype)
    with pytest.raises(ValueError, match=rf"{name}\[2\] is 200, but must lie in \[0, 3\)"):
        call(**given)


def test_the_largest_unsigned_label_is_named_as_it_is():
    given = arguments("linear_confidence")
    given["labels"] = torch.from_numpy(np.array([1, 2**64 - 1, 0, 0], np.uint64))
    with pytest.raises(ValueError, match=r"labels\[1\] is 18446744073709551615"):
        ops.linear_confidence(**given)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.split(".")[1] in ("thresholds", "path_weights")],
)
def test_numbers_are_taken_as_a_list(case, kind):
    operator, name = case.split(".")
    given, call = arguments(operator), getattr(ops, operator)
    right = call(**given)
    value = given[name]
    given[name] = kind(value[0].tolist() if isinstance(value, list) else value.tolist())
    torch.testing.assert_close(call(**given)[0], right[0])
    if isinstance(value, list):
        given[name] = kind([kind(one.tolist()) for one in value])
        torch.testing.assert_close(call(**given)[0], right[0])
    for wrong in (["a", "b"], "ab", 0.5, [None, 0.5]):
        given[name] = wrong
        with pytest.raises(ValueError, match=rf"{name}.* must be a tensor or a list of numbers"):
            call(**given)


@pytest.mark.parametrize("case", [c for c in CASES if "thresholds" not in c and "path" not in c])
def test_a_list_for_a_tensor_is_refused_by_name(case):
    operator, name = case.split(".")
    given = arguments(operator)
    given[name] = replaced(given[name], torch.Tensor.tolist)
    with pytest.raises(ValueError, match=rf"{name.rstrip('s')}"):
        getattr(ops, operator)(**given)


@pytest.mark.parametrize("name", ["weight", "bias", "thresholds", "path_weights", "saliency"])
def test_a_plan_refuses_an_argument_on_meta(name):
    given = arguments("linear_confidence")
    features, labels = given.pop("features"), given.pop("labels")
    given[name] = given[name].to("meta")
    with pytest.raises(ValueError, match="meta"):
        ops.LinearPlan(**given)(features, labels)
