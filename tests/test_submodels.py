from __future__ import annotations

import copy

import pytest
import torch

import lc_engine as lc
from helpers.networks import Network, state
from lc_engine.masking import Masking
from lc_engine.models.state import ModelState
from lc_engine.ops import philox
from lc_engine.path.learning_path import LearningPath
from lc_engine.submodels import Submodels

PATH = LearningPath.explicit([1.0, 0.6, 0.3, 0.05])


@pytest.mark.parametrize("kind", ["magnitude", "random", "given"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_at_writes_the_masked_weights(kind, scope, layout):
    model = Network().to(memory_format=layout)
    generator = torch.Generator().manual_seed(1)
    names = ["conv.weight", "inner.weight"]
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    scores = {n: torch.rand(weights[n].shape, generator=generator) for n in names}
    masking = Masking(kind, scope, seed=7, saliency=scores if kind == "given" else None)
    if kind == "random":
        scores = {n: philox.uniform(tuple(weights[n].shape), 7, i) for i, n in enumerate(names)}
    elif kind == "magnitude":
        scores = {n: weights[n].abs() for n in names}
    with Submodels(model, PATH, masking) as submodels:
        for k in (2, 0, 3, 1):
            submodels.at(k)
            for name, parameter in model.named_parameters():
                want = weights[name]
                if name in names:
                    ranked = torch.cat([s.reshape(-1) for s in scores.values()])
                    ranked = scores[name].reshape(-1) if scope == "layer" else ranked
                    count = round(PATH.capacities[k] * ranked.numel())
                    threshold = ranked.sort(descending=True).values[count - 1]
                    if kind == "random":
                        threshold = 1 - PATH.capacities[k]
                    want = torch.where(scores[name] >= threshold, want, 0)
                assert torch.equal(parameter, want), (k, name)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_everything_comes_back_bit_for_bit(error, layout):
    model = Network().to(memory_format=layout)
    with torch.no_grad():
        model.conv.weight[0, 0, 0, :2] = torch.tensor([-0.0, 1e-42])  # a sign and a subnormal
    before = state(model)

    def touch_buffers(module):
        module.calls += 1
        module.norm.running_mean.mul_(2)
        module.register_buffer("cache", torch.ones(1))

    model.action = touch_buffers

    def use():
        with Submodels(model, PATH) as submodels:
            for k in range(len(PATH)):
                submodels.at(k)
                assert not any(module.training for module in model.modules())
                model(torch.ones(2, 3, 4, 4))
                if error is not None and k == 2:
                    raise error("from inside")

    if error is None:
        use()
    else:
        with pytest.raises(error, match="from inside"):
            use()
    assert state(model) == before


def test_a_buffer_that_the_forward_writes_is_put_back_before_each_sub_model():
    model = Network()

    def count(module):
        module.calls += 1

    model.action = count
    with Submodels(model, PATH) as submodels:
        for k in range(len(PATH)):
            submodels.at(k)
            assert model.calls.item() == 0
            model(torch.ones(1, 3, 4, 4))


def test_ctrl_c_during_the_restoration_begins_it_again(monkeypatch):
    model = Network()
    before = state(model)
    put_back, pressed = ModelState.put_back, []

    def interrupted(self):
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        put_back(self)

    monkeypatch.setattr(ModelState, "put_back", interrupted)
    with pytest.raises(KeyboardInterrupt), Submodels(model, PATH) as submodels:
        submodels.at(3)
    assert pressed
    assert state(model) == before


def test_a_backward_pass_that_was_pending_is_still_valid():
    model, reference = Network(), Network()
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for one in (model, reference):
        one.eval()
    loss = model(x).sum()
    with Submodels(model, PATH) as submodels:
        submodels.at(2)
    loss.backward()
    reference(x).sum().backward()
    assert torch.equal(model.conv.weight.grad, reference.conv.weight.grad)


def test_works_under_inference_mode_and_twice():
    model = Network()
    before = state(model)
    submodels = Submodels(model, PATH)
    for _ in range(2):
        with torch.inference_mode(), submodels:
            submodels.at(3)
            assert int((model.inner.weight == 0).sum()) > 0
        assert state(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    model = Network().to(dtype)
    before = state(model)
    with Submodels(model, PATH, Masking(scope="layer")) as submodels:
        submodels.at(1)
        assert int((model.inner.weight != 0).sum()) >= round(0.6 * 54)
        assert int((model.inner.weight != 0).sum()) < 54
    assert state(model) == before


def test_a_layer_that_loses_all_its_weights():
    model = Network()
    with torch.no_grad():
        model.inner.weight.mul_(1e-6)
    with Submodels(model, LearningPath.explicit([0.5])) as submodels:
        submodels.at(0)
        assert not model.inner.weight.any()
        assert torch.isfinite(model(torch.ones(1, 3, 4, 4))).all()


def test_misuse_is_said():
    model = Network()
    submodels = Submodels(model, PATH)
    with pytest.raises(RuntimeError, match="inside"):
        submodels.at(0)
    with submodels:
        for k in (-1, 4):
            with pytest.raises(ValueError, match=r"k must lie in \[0, 4\)"):
                submodels.at(k)
        with pytest.raises(RuntimeError, match="in use"), submodels:
            pass
    assert lc.Submodels is Submodels


def test_the_masked_copy_is_all_the_memory_it_takes():
    model = Network()
    with Submodels(model, PATH) as submodels:
        held = sum(t.numel() for t in submodels._pristine)
        assert held == model.conv.weight.numel() + model.inner.weight.numel()
        assert [t.data_ptr() for t in submodels._target] == [
            model.conv.weight.data_ptr(),
            model.inner.weight.data_ptr(),
        ]
    assert copy.deepcopy(submodels)._pristine == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("which", ["body", "head", "all"])
def test_scores_of_tied_weights_are_those_of_the_exact_masks(which, scope, dtype):
    generator = torch.Generator().manual_seed(4)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 5, bias=False)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randint(-3, 4, parameter.shape, generator=generator)
            parameter.copy_(drawn / 4)
    x = torch.randint(-2, 3, (9, 12), generator=generator).float()
    y = torch.randint(0, 5, (9,), generator=generator)
    masking, total = Masking(scope=scope, weights=which), {"body": 240, "head": 100, "all": 340}
    scorer = lc.Scorer(model, head="linear", path=PATH, masking=masking, dtype=dtype)
    found = scorer.score_batch((x, y))
    log_probs = []
    with Submodels(model, PATH, masking) as submodels, torch.no_grad():
        for k, count in enumerate(PATH.keep_counts(total[which])):
            submodels.at(k)
            levels = zip(submodels.masks.saliency, submodels.thresholds[k], strict=True)
            assert sum(int((level >= t).sum()) for level, t in levels) == count
            log_probs.append(model(x).log_softmax(1)[torch.arange(9), y])
    want = torch.stack(log_probs)
    close = {"atol": 1e-5 if dtype == "float32" else 0.02, "rtol": 1e-5}
    torch.testing.assert_close(found.loss, -want.mean(0), **close)
    torch.testing.assert_close(found.lc, want.exp().mean(0), **close)
