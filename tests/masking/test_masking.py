from __future__ import annotations

import pickle
import warnings
from unittest import mock

import numpy as np
import pytest
import timm
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from lc_engine import ops
from lc_engine.masking import Masking
from lc_engine.ops import contract, levels
from lc_engine.path.learning_path import LearningPath
from lc_engine.submodels import Submodels


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


def masked(weights, masks, backend="reference") -> list[list[torch.Tensor]]:
    """Return, per sub-model, which weights it keeps, as `ops.apply_thresholds` masks ones."""
    ones = [torch.ones_like(weight) for weight in weights.values()]
    saliency = masks.saliency
    if saliency is None:
        saliency = [weight.abs() for weight in weights.values()]
    kept = []
    for k, bounds in enumerate(masks.thresholds.tolist()):
        live = [torch.empty_like(one) for one in ones]
        dropped = masks.dropped_at(k)
        ops.apply_thresholds(ones, live, bounds, saliency, dropped=dropped, backend=backend)
        kept.append([one == 1 for one in live])
    return kept


# Few levels, so that nearly all tie: zeros of both signs, denormals, and infinities.
LEVELS = [0.0, -0.0, 1e-41, -1e-41, 0.5, -0.5, 1.0, float("inf"), -float("inf")]
SHAPES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=1, max_size=3)
CAPACITIES = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6, unique=True)


def drawn_tensors(data, shapes, dtype):
    return {
        f"{i}": torch.tensor(
            data.draw(st.lists(st.sampled_from(LEVELS), min_size=n * m, max_size=n * m)),
            dtype=dtype,
        ).reshape(n, m)
        for i, (n, m) in enumerate(shapes)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["magnitude", "given"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), shapes=SHAPES, capacities=CAPACITIES, listed=st.sampled_from([0, 100]))
def test_each_submodel_keeps_its_count_also_where_weights_tie(
    scope, kind, dtype, data, shapes, capacities, listed
):
    weights = drawn_tensors(data, shapes, dtype)
    saliency = drawn_tensors(data, shapes, dtype) if kind == "given" else None
    masking = Masking(kind, scope=scope, saliency=saliency)
    path = LearningPath.explicit(sorted(capacities, reverse=True))
    with mock.patch.object(levels, "LISTED", listed):  # as levels, or as lists
        masks = masking.masks(weights, path)
    kept = masked(weights, masks)
    alive = [
        sum(int((keeps & (w != 0)).sum()) for keeps, w in zip(row, weights.values(), strict=True))
        for row in kept
    ]
    assert list(masks.kept) == alive
    for i, weight in enumerate(weights.values()):  # the same for an operator that takes no lists
        bounds, found = masks.of(i, weight)
        found = weight.abs() if found is None else found
        for k, bound in enumerate(bounds):
            assert torch.equal(found.float() >= bound.float(), kept[k][i])

    scores = [t.float() for t in (saliency or {n: w.abs() for n, w in weights.items()}).values()]
    zeros = [w == 0 for w in weights.values()]
    pools = [list(range(len(weights)))] if scope == "global" else [[i] for i in range(len(weights))]
    for pool in pools:
        counts = path.keep_counts(sum(scores[i].numel() for i in pool))
        score = torch.cat([scores[i].reshape(-1) for i in pool])
        zero = torch.cat([zeros[i].reshape(-1) for i in pool])
        before = torch.ones_like(zero)
        for k, count in enumerate(counts):
            keeps = torch.cat([kept[k][i].reshape(-1) for i in pool])
            assert int(keeps.sum()) == count
            assert not (keeps & ~before).any()  # nested
            before = keeps
            if 0 < count < len(score):
                worst, best = score[keeps].min(), score[~keeps].max()
                assert worst >= best
                if worst == best:  # among equals, a zero stays only if no other weight went
                    equal = score == worst
                    assert not (keeps & equal & zero).any() or not (~keeps & equal & ~zero).any()


@pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_backends_agree_on_tied_weights(dtype, scope):
    generator = torch.Generator().manual_seed(5)
    weights = {
        name: torch.randint(-3, 4, shape, generator=generator).to(dtype) / 4
        for name, shape in {"a": (37, 65), "b": (8, 3, 3, 3)}.items()
    }
    masks = Masking(scope=scope).masks(weights, LearningPath.explicit([0.9, 0.7, 0.5, 0.1]))
    for one, other in zip(masked(weights, masks), masked(weights, masks, "native"), strict=True):
        assert all(map(torch.equal, one, other))
    with mock.patch.object(levels, "LISTED", 100):
        masks = Masking(scope=scope).masks(weights, LearningPath.explicit([0.9, 0.7, 0.5, 0.1]))
    assert masks.dropped
    for one, other in zip(masked(weights, masks), masked(weights, masks, "native"), strict=True):
        assert all(map(torch.equal, one, other))


def test_ties_at_a_threshold_are_broken():
    weight = {"w": torch.tensor([3.0, -1.0, 1.0, 1.0, -2.0, 0.5])}
    masks = Masking().masks(weight, LearningPath.explicit([1.0, 0.5, 0.3]))
    kept = torch.stack([row for (row,) in masked(weight, masks)])
    assert kept.sum(1).tolist() == [6, 3, 2]  # three weights tie at 1.0, of which one is kept
    assert kept[:, [0, 4]].all()
    assert kept[:, 5].tolist() == [True, False, False]


def test_ties_prefer_no_row_or_column():
    weight = {"w": torch.ones(64, 64)}
    ((kept,),) = masked(weight, Masking().masks(weight, LearningPath.explicit([0.5])))
    assert int(kept.sum()) == 2048
    for axis in (0, 1):
        counts = kept.sum(axis)  # 32 ± 4 σ
        assert counts.min() >= 16
        assert counts.max() <= 48


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_masks_without_ties_compare_magnitudes_with_the_thresholds(scope):
    generator = torch.Generator().manual_seed(8)
    order = torch.randperm(600, generator=generator).float() + 1
    weights = {"a": order[:400].reshape(20, 20), "b": -order[400:].reshape(20, 10)}
    path = LearningPath.geometric(9, 0.2)
    masks = Masking(scope=scope).masks(weights, path)
    assert masks.saliency is None
    assert torch.equal(masks.thresholds, Masking(scope=scope).thresholds(weights, path))
    given_ = {name: weight.abs() for name, weight in weights.items()}
    masks = Masking("given", scope=scope, saliency=given_).masks(weights, path)
    assert all(map(torch.equal, masks.saliency, given_.values()))


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "TQ2_0", "MXFP4"])
def test_weights_of_a_gguf_type_reach_the_capacities(name):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    few = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
    weights = {"w": torch.from_numpy(few).to(torch.bfloat16)}
    path = LearningPath.explicit([1.0, 0.9, 0.7, 0.5, 0.3])
    for scope in ("global", "layer"):
        kept = masked(weights, Masking(scope=scope).masks(weights, path))
        assert [int(one.sum()) for (one,) in kept] == path.keep_counts(64 * 256)


def test_thresholds_alone_keep_all_that_tie():
    weight = {"w": torch.tensor([3.0, -1.0, 1.0, 1.0, -2.0, 0.5])}
    thresholds = Masking().thresholds(weight, LearningPath.explicit([1.0, 0.5, 0.3]))
    assert thresholds[:, 0].tolist() == [0.5, 1.0, 2.0]


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
    with pytest.raises(ValueError, match=r'"3.weight" is packed \(int8 in a Linear\)'):
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


def standardized(name):
    if name == "WeightStandardizedConv2d":
        from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

        return WeightStandardizedConv2d(3, 4, 3)
    if name == "AutoBitLinear":
        from transformers.integrations.bitnet import AutoBitLinear

        return AutoBitLinear(3, 4, online_quant=True)
    return getattr(timm.layers, name)(3, 4, 3)


@pytest.mark.parametrize(
    "name",
    [
        "StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame",
        "WeightStandardizedConv2d", "AutoBitLinear",
    ],
)  # fmt: skip
def test_layers_that_compute_their_weight_are_refused_by_name(name):
    model = nn.Sequential(standardized(name), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=rf'"0.weight" is .* at every forward \({name}\)'):
        Masking().find(model, "2")
    assert list(Masking(weights="head").find(model, "2")) == ["2.weight"]


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv1d, nn.Linear, nn.MultiheadAttention])
@pytest.mark.parametrize(
    "compute",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        lambda layer, name: parametrize.register_parametrization(layer, name, Halved()),
        lambda layer, name: prune.random_unstructured(layer, name, amount=0.5),
    ],
)
def test_weights_computed_at_every_forward_are_refused_by_name(kind, compute):
    attention = kind is nn.MultiheadAttention
    layer = kind(8, 2) if attention else kind(8, 4, *([3] if kind is not nn.Linear else []))
    name = "in_proj_weight" if attention else "weight"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the older weight_norm
        compute(layer, name)
    model = nn.Sequential(layer, nn.Linear(4, 2))
    message = rf'"0.{name}" is computed at every forward.*make it permanent first'
    with pytest.raises(ValueError, match=message):
        Masking().find(model, "1")


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "nf_resnet50", "vit_small_r26_s32_224"])
def test_models_of_standardized_layers_are_refused(name):
    model = timm.create_model(name).to("meta")
    with pytest.raises(ValueError, match=r"is standardized or quantized at every forward"):
        Masking().find(model, None)


def test_gpt2_is_masked_as_the_linear_layers_that_it_has():
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1
    )
    model = transformers.GPT2LMHeadModel(config)
    names = [
        f"transformer.h.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]
    weights = Masking().find(model, "lm_head")
    assert list(weights) == names
    with Submodels(model, LearningPath.explicit([0.5]), head="lm_head") as submodels:
        submodels.at(0)
        zeros = sum(int((weight == 0).sum()) for weight in weights.values())
        assert zeros == sum(weight.numel() for weight in weights.values()) // 2


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


def test_a_few_ties_cost_no_levels():
    """Large tensors always have some; up to 0.1 % of the weights they are kept with the others."""
    weights = {"a.weight": nn.Parameter(torch.arange(1.0, 4001.0))}
    path = LearningPath.explicit([1.0, 0.5])
    with torch.no_grad():
        weights["a.weight"][1998:2002] = 2001.0  # the 2,000th largest and its neighbours
        masks = Masking().masks(weights, path)
        assert (masks.saliency, masks.dropped, masks.breaks_ties) == (None, (), False)
        weights["a.weight"][1990:2002] = 2001.0
    masks = Masking().masks(weights, path)
    assert masks.saliency is None
    assert [len(one) for one in masks.dropped_at(0)] == [0]
    assert [len(one) for one in masks.dropped_at(1)] == [10]
    ((kept,),) = masked(weights, masks)[1:]
    assert int(kept.sum()) == 2000
    assert kept[2002:].all()
    assert not kept[:1990].any()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_lists_and_levels_are_the_same_masks(scope, dtype):
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(shape, generator=generator).bfloat16().to(dtype)
        for name, shape in {"a": (300, 200), "b": (64, 32, 3, 3)}.items()
    }
    path = LearningPath.gauss(8, 0.3, 1.0)
    masks = Masking(scope=scope).masks(weights, path)
    assert masks.breaks_ties
    assert masks.saliency is None  # a dtype of few values has few ties at each of them
    with mock.patch.object(levels, "LISTED", 0):
        others = Masking(scope=scope).masks(weights, path)
    assert not others.dropped
    assert masks.kept == others.kept
    for one, other in zip(masked(weights, masks), masked(weights, others), strict=True):
        assert all(map(torch.equal, one, other))


@settings(deadline=None, max_examples=60)
@given(st.data(), SHAPES, CAPACITIES, st.sampled_from([torch.float32, torch.float64]))
def test_a_sort_on_a_device_gives_the_masks_of_the_host(data, shapes, capacities, dtype):
    tensors = drawn_tensors(data, shapes, dtype)
    path = LearningPath.explicit(sorted(capacities, reverse=True))
    given_ = {name: drawn_tensors(data, shapes, dtype)[name].abs() for name in tensors}
    for masking in (
        Masking(),
        Masking(scope="layer"),
        Masking(kind="given", saliency=given_),
    ):
        host, bounds = masking.masks(tensors, path), masking.thresholds(tensors, path)
        with mock.patch("lc_engine.masking.masking._is_sorted_there", return_value=True):
            there = masking.masks(tensors, path)
            assert torch.equal(masking.thresholds(tensors, path), bounds)
        assert torch.equal(host.thresholds, there.thresholds)
        assert (host.kept, host.first_equal) == (there.kept, there.first_equal)
        assert host.breaks_ties == there.breaks_ties
        for one, other in zip(masked(tensors, host), masked(tensors, there), strict=True):
            assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("size", [1, 1000])
def test_quantiles_by_a_sort_are_those_of_a_partition(size):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(size, generator=generator).abs()
    scores[::7] = scores[0]
    counts = [size, size // 2, size // 7, 1, 0]
    for values in (scores, scores.double(), scores.bfloat16().float()):
        host = levels.quantiles(values.numpy(), counts)
        there = levels.device_quantiles([values[: size // 3], values[size // 3 :]], counts)
        np.testing.assert_array_equal(host.bounds, there.bounds)
        np.testing.assert_array_equal(host.kept, there.kept)
        assert host.size == there.size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_masks_of_a_device_are_those_of_the_host(scope):
    torch.manual_seed(0)
    tensors = {"a": torch.randn(300, 200), "b": torch.randn(64, 3, 3, 3).bfloat16().float()}
    there = {name: tensor.cuda() for name, tensor in tensors.items()}
    path = LearningPath.geometric(20, 0.02)
    one, other = (Masking(scope=scope).masks(each, path) for each in (tensors, there))
    assert torch.equal(one.thresholds, other.thresholds)
    assert (one.kept, one.first_equal) == (other.kept, other.first_equal)
    with pytest.raises(ValueError, match='"b" holds NaN'):
        Masking(scope=scope).masks(there | {"b": there["b"].log()}, path)
