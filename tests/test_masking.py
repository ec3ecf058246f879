from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lc_engine.masking import Masking
from lc_engine.path.learning_path import LearningPath


def network(seed: int = 0) -> nn.Sequential:
    """Convolutions, a norm, an embedding-free body and a head named "4"."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 7), nn.Linear(7, 3)
        )


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ("body", ["0.weight", "3.weight"]),
        ("head", ["4.weight"]),
        ("all", ["0.weight", "3.weight", "4.weight"]),
        (lambda name, module: isinstance(module, nn.Conv2d), ["0.weight"]),
        (lambda name, module: name in ("3", "4"), ["3.weight", "4.weight"]),
    ],
)
def test_find_takes_convolution_and_linear_weights_only(weights, names):
    assert list(Masking(weights=weights).find(network(), "4")) == names


def test_find_takes_the_projections_of_attention():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    names = list(Masking(weights="all").find(block, None))
    assert names == [
        "self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight",
    ]  # fmt: skip
    split = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert list(Masking(weights="all").find(split, None)) == [
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight",
    ]  # fmt: skip


def test_a_head_that_is_a_container_is_left_out_whole():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(), nn.Linear(4, 2)))
    assert list(Masking().find(model, "1")) == ["0.weight"]
    assert list(Masking(weights="head").find(model, "1")) == ["1.1.weight"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_magnitude_thresholds_keep_the_counts_of_the_path(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "a": torch.randn(7, 11, generator=generator, dtype=torch.float64),
        "b": torch.randn(5, 3, 3, 3, generator=generator, dtype=torch.float64) * 3,
    }
    # Distinct magnitudes also in bfloat16: 212 of its values, in a random order.
    order = torch.randperm(212, generator=generator).double()
    flat = torch.cat([t.reshape(-1) for t in tensors.values()])
    flat = flat.sign() * (1 + (order % 128) / 128) * 2.0 ** (order // 128)
    tensors = {
        "a": flat[:77].reshape(7, 11).to(dtype),
        "b": flat[77:].reshape(5, 3, 3, 3).to(dtype),
    }
    path = LearningPath.geometric(20, 0.17)
    whole = Masking().thresholds(tensors, path)
    layers = Masking(scope="layer").thresholds(tensors, path)
    assert whole.shape == layers.shape == (20, 2)
    for k, count in enumerate(path.keep_counts(212)):
        kept = sum(
            int((t.double().abs() >= whole[k, i]).sum()) for i, t in enumerate(tensors.values())
        )
        assert kept == count
    for i, tensor in enumerate(tensors.values()):
        kept = [int((tensor.double().abs() >= t).sum()) for t in layers[:, i]]
        assert kept == path.keep_counts(tensor.numel())


def test_ties_at_a_threshold_are_all_kept():
    weight = {"w": torch.tensor([3.0, -1.0, 1.0, 1.0, -2.0, 0.5])}
    thresholds = Masking().thresholds(weight, LearningPath.explicit([1.0, 0.5, 0.3]))
    kept = [(weight["w"].abs() >= t).tolist() for t in thresholds[:, 0]]
    assert [sum(row) for row in kept] == [6, 5, 2]  # 3 wanted, but three weights tie at 1.0


def test_nothing_kept_is_an_infinite_threshold():
    weight = {"w": torch.ones(3)}
    thresholds = Masking().thresholds(weight, LearningPath.explicit([1.0, 0.1]))
    assert thresholds.tolist() == [[1.0], [float("inf")]]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_random_thresholds_are_the_fraction_removed(scope):
    path = LearningPath.linear(4, 0.1, 1.0)
    thresholds = Masking("random", scope=scope).thresholds(
        {"a": torch.ones(2), "b": torch.ones(3)}, path
    )
    assert thresholds.tolist() == [[1 - r, 1 - r] for r in path.capacities]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_given_saliency_decides_in_place_of_the_weight(scope):
    generator = torch.Generator().manual_seed(3)
    weights = {"a": torch.ones(4, 5), "b": torch.ones(3)}
    saliency = {n: torch.rand(w.shape, generator=generator) - 0.5 for n, w in weights.items()}
    masking = Masking("given", scope=scope, saliency=saliency | {"unused": torch.ones(1)})
    thresholds = masking.thresholds(weights, LearningPath.explicit([0.5]))[0]
    kept = [int((saliency[n] >= t).sum()) for n, t in zip(weights, thresholds, strict=True)]
    assert sum(kept) == 12
    if scope == "layer":
        assert kept == [10, 2]


def test_saliency_errors_name_the_weight():
    path, weights = LearningPath.explicit([0.5]), {"a": torch.ones(2, 2), "b": torch.ones(3)}
    with pytest.raises(ValueError, match='lacks 1 of 2 masked weights, such as "b"'):
        Masking("given", saliency={"a": torch.ones(2, 2)}).thresholds(weights, path)
    bad = {"a": torch.ones(2, 2), "b": torch.ones(4)}
    with pytest.raises(ValueError, match=r'saliency\["b"\] must be .* \(3,\), got .* \(4,\)'):
        Masking("given", saliency=bad).thresholds(weights, path)
    bad["b"] = torch.tensor([1.0, float("nan"), 0.0])
    with pytest.raises(ValueError, match='"b" holds NaN'):
        Masking("given", saliency=bad).thresholds(weights, path)
    with pytest.raises(ValueError, match='"a" holds NaN'):
        Masking().thresholds({"a": torch.tensor([float("nan")])}, path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "size"}, "kind must be one of"),
        ({"scope": "tensor"}, "scope must be one of"),
        ({"weights": "tail"}, "weights must be one of"),
        ({"kind": "given"}, 'kind="given"'),
        ({"saliency": {"a": torch.ones(1)}}, 'kind="given"'),
    ],
)
def test_fields_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Masking(**arguments)


def test_a_model_without_a_weight_to_mask_is_refused():
    with pytest.raises(
        ValueError, match=r'"body": Linear has no .* outside its head.*weights="head"'
    ):
        Masking().find(nn.Linear(3, 2), "")
    with pytest.raises(ValueError, match='"all": LayerNorm has no convolution or linear weight'):
        Masking(weights="all").find(nn.LayerNorm(3), None)
    with pytest.raises(ValueError, match="has no classifier"):
        Masking(weights="head").find(network(), None)
    with pytest.raises(ValueError, match="weights chose none"):
        Masking(weights=lambda name, module: False).find(network(), "4")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(6, 4)
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.words.weight


def test_a_weight_tied_to_one_that_is_not_masked_is_refused():
    with pytest.raises(ValueError, match=r'"out.weight" is tied to "words.weight"'):
        Masking(weights="all").find(Tied(), None)
    assert list(Masking().find(Tied(), "out")) == ["inner.weight"]
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.data)  # another parameter, the same memory
    with pytest.raises(ValueError, match=r'"0.weight" is tied to "1.weight"'):
        Masking().find(model, "1")


def test_a_weight_that_masked_layers_share_counts_once():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 4))
    model[3].weight = layer.weight
    assert list(Masking(weights="all").find(model, None)) == ["0.weight"]


def test_weights_that_cannot_be_masked_are_named():
    model = network()
    model[3].weight = nn.Parameter(torch.ones(7, 5, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r'"3.weight" is a Parameter of torch.int8.*quantized'):
        Masking().find(model, "4")

    model = network()
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r'"0.weight" is computed at every forward.*prune.remove'):
        Masking().find(model, "4")
    prune.remove(model[0], "weight")
    assert "0.weight" in Masking().find(model, "4")

    model = network()
    parametrizations.weight_norm(model[3])
    with pytest.raises(ValueError, match=r'"3.weight" is computed at every forward'):
        Masking().find(model, "4")

    with pytest.raises(ValueError, match=r'"0.weight" is on the meta device'):
        Masking().find(network().to("meta"), "4")

    with pytest.raises(ValueError, match='"weight" has no shape yet'):
        Masking(weights="all").find(nn.LazyLinear(3), None)

    with torch.inference_mode():
        model = network()
    with pytest.raises(ValueError, match=r"made under torch.inference_mode"):
        Masking().find(model, "4")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, torch.qint8)
    with pytest.raises(ValueError, match='module "3" is quantized'):
        Masking().find(model, "4")


def test_digest_follows_what_the_scores_depend_on():
    ones, twos = {"w": torch.ones(2)}, {"w": 2 * torch.ones(2)}
    variants = [
        Masking(), Masking(scope="layer"), Masking(weights="all"), Masking("random"),
        Masking("random", seed=1), Masking("given", saliency=ones), Masking("given", saliency=twos),
    ]  # fmt: skip
    assert len({masking.digest for masking in variants}) == len(variants)
    for masking in variants:
        assert pickle.loads(pickle.dumps(masking)).digest == masking.digest
    assert Masking(seed=5).digest == Masking().digest  # no random number is drawn


def test_thresholds_of_large_tensors_equal_a_full_sort():
    values = np.random.default_rng(0).standard_normal(100_003).astype(np.float32)
    path = LearningPath.geometric(50)
    thresholds = Masking().thresholds({"w": torch.from_numpy(values)}, path)[:, 0]
    descending = np.sort(np.abs(values))[::-1]
    assert thresholds.tolist() == [float(descending[n - 1]) for n in path.keep_counts(len(values))]
