from __future__ import annotations

import functools
import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import Memory, Network, data, state
from helpers.plain_loop import PlainLoop
from helpers.realdata import image_files
from lc_engine.heads.prototype import Prototypes
from lc_engine.models.load import ModelSpec

CLASSIFIERS = {"lite0": "classifier", "resnet18": "fc"}
# Short paths whose sub-models are alive: at 2 % of its weights a network gives a constant.
PATHS = {
    "geometric": lc.LearningPath.geometric(3, 0.07),
    "gauss": lc.LearningPath.gauss(3, 0.6, 1.0),
    "linear": lc.LearningPath.linear(3, 0.5, 1.0),
    "explicit": lc.LearningPath.explicit([0.97, 0.8], [1, 3]),
}


@functools.cache
def random_saliency(shapes: tuple[tuple[str, torch.Size], ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes}


@pytest.mark.parametrize("name", ["lite0", "resnet18"])
@pytest.mark.parametrize(
    ("head", "which"),
    [("prototype", "body"), ("linear", "body"), ("linear", "head"), ("linear", "all")],
)
@pytest.mark.parametrize("kind", ["magnitude", "random", "given"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_scores_are_those_of_a_plain_loop(models, images, name, head, which, kind, scope):
    model, classifier = models[name], CLASSIFIERS[name]
    inputs = images[0][:5]
    labels = images[1][:5] if head == "linear" else torch.tensor([4, 9, 4, 4, 9])
    loop = PlainLoop(model, classifier)
    saliency = None
    if kind == "given":
        saliency = random_saliency(tuple((n, loop.weights[n].shape) for n in loop.maskable))
    before = state(model)
    # A path per case, such that each model, kind and scope meets all of them, each head too.
    turn = ["prototypebody", "linearbody", "linearhead", "linearall"].index(head + which)
    turn += ["magnitude", "random", "given"].index(kind) + 2 * (scope == "layer")
    path = list(PATHS.values())[turn % 4]
    loop.step = path.step
    scorer = lc.Scorer(
        model,
        head=head,
        path=path,
        masking=lc.Masking(kind, scope=scope, weights=which, seed=5, saliency=saliency),
        temperature=0.01 if head == "prototype" else 1.0,
    )
    scores = scorer.fit(Memory(inputs, labels)).score_batch((inputs, labels))
    with torch.inference_mode():
        means = loop.prototypes(inputs, labels) if head == "prototype" else None
        sub_models = loop.masked(
            path.capacities, kind=kind, scope=scope, which=which, seed=5, saliency=saliency
        )
        p = torch.stack(
            [
                loop.linear(weights, inputs, labels)
                if head == "linear"
                else loop.prototype(weights, inputs, labels, means, 0.01)
                for weights in sub_models
            ]
        )
    omega = torch.tensor(path.weights, dtype=torch.float64)[:, None]
    # Folding a batch norm into its convolution rounds elsewhere than the loop does.
    torch.testing.assert_close(scores.lc.double(), (omega * p).sum(0), rtol=0, atol=2e-5)
    torch.testing.assert_close(
        scores.loss.double(), -(omega * p.log()).sum(0), rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(scores.log_probs.double(), p.log(), rtol=1e-5, atol=2e-4)
    assert scores.lc.dtype == torch.float32
    assert state(model) == before


@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_a_row_has_its_score_whatever_the_batch(lite0, images, head):
    """To 1e-5, not bit for bit: convolutions and matrix products choose their kernels by shape,
    these add in another order, and logits of size 10 to 20 carry a rounding of 1e-6 each."""
    generator = torch.Generator().manual_seed(0)
    base = torch.cat([images[0], images[0].flip(3), images[0].flip(2), images[0][:4] * 0.5])
    labels = images[1].repeat(4)[:64]
    path = lc.LearningPath.explicit([0.95, 0.8])
    scorer = lc.Scorer(lite0, head=head, path=path).fit(Memory(base, labels))
    whole = scorer.score_batch((base, labels))
    for size in (1, 7, 64):
        order = torch.randperm(64, generator=generator)
        order = order[:16] if size == 1 else order
        parts = [scorer.score_batch((base[rows], labels[rows])) for rows in order.split(size)]
        lc_parts = torch.cat([part.lc for part in parts])
        loss_parts = torch.cat([part.loss for part in parts])
        torch.testing.assert_close(lc_parts, whole.lc[order], rtol=0, atol=1e-5)
        torch.testing.assert_close(loss_parts, whole.loss[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7])
def test_masked_heads_give_the_same_bits_in_any_batch(size):
    generator = torch.Generator().manual_seed(size)
    x, y = torch.randn(64, 33, generator=generator), torch.arange(64) % 5
    scorer = lc.Scorer(nn.Linear(33, 5), head="linear", masking=lc.Masking(weights="head"))
    whole = scorer.score_batch((x, y))
    order = torch.randperm(64, generator=generator)
    parts = [scorer.score_batch((x[rows], y[rows])) for rows in order.split(size)]
    torch.testing.assert_close(torch.cat([p.lc for p in parts]), whole.lc[order], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_real_images_in_a_folder_end_to_end(tmp_path):
    for name, content, label in image_files():
        folder = tmp_path / "images" / f"class{label % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    broken = tmp_path / "images" / "class0" / "broken.jpg"
    broken.write_bytes(image_files()[0][1][:3000])
    scorer = lc.Scorer(ModelSpec("efficientnet-lite0", image_size=64), path=PATHS["gauss"])
    table = lc.score(scorer, tmp_path / "images", tmp_path / "scores", batch_size=8)
    status = dict(zip(table.column("id").tolist(), table.column("status").tolist(), strict=True))
    assert len(table) == 21
    assert status.pop("class0/broken.jpg") == "unreadable"
    assert set(status.values()) == {"ok"}
    assert np.isfinite(table.column("lc")).sum() == 20
    assert len(lc.select(table, keep=6, strategy="easy", seed=0)) == 6


def small(head="prototype", **more):
    return lc.Scorer(Network(), head=head, path=lc.LearningPath.explicit([1.0, 0.6, 0.2]), **more)


@pytest.mark.parametrize("head", ["prototype", "linear"])
@pytest.mark.parametrize("where", ["fit", "score", "forward"])
def test_the_model_comes_back_after_an_exception_of_the_data(head, where):
    calls, armed = [], []

    def fail_on_the_third(module):
        if armed:
            calls.append(1)
            module.calls += 1
            if where == "forward" and len(calls) == 3:
                raise KeyboardInterrupt

    scorer = small(head)
    model = scorer.model
    model.action = fail_on_the_third  # before the sub-models' copy is made
    x, y = data()
    scorer.fit(Memory(x, y))
    armed.append(True)
    before = state(model)
    if where == "forward":
        with pytest.raises(KeyboardInterrupt):
            scorer.score_batch((x, y)) if head == "linear" else lc.score(scorer, Memory(x, y))
    else:
        source = Memory(x, y, fail_at=4)
        fresh = lc.Scorer(model, head=head, path=scorer.path) if where == "fit" else scorer
        with pytest.raises(OSError, match="the disk is gone"):
            lc.score(fresh, source, batch_size=2)
    assert calls
    assert state(model) == before


def test_lc_std_is_the_spread_over_the_path():
    rows = small("linear").score_rows(next(Memory(*data()).batches(12)))
    p = rows.scores.log_probs.double().exp()
    omega = torch.full((3, 1), 1 / 3, dtype=torch.float64)
    want = ((omega * p * p).sum(0) - (omega * p).sum(0) ** 2).clamp_min(0).sqrt()
    torch.testing.assert_close(rows.lc_std.double(), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("return_path", [False, True])
@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_a_row_that_cannot_be_scored_stays_with_its_status(head, return_path):
    x, y = data()
    y[2], x[5, 0, 0, 0] = 40, float("nan")
    status = ["ok"] * 12
    status[7] = "unreadable"
    scorer = small(head)
    table = lc.score(scorer, Memory(x, y, status), batch_size=5, return_path=return_path)
    want = ["ok"] * 12
    want[5], want[7] = "non_finite", "unreadable"
    if head == "linear":
        want[2] = "bad_label"
        assert table.column("detail")[2] == "the label is 40, but the head has 4 classes"
    assert table.column("status").tolist() == want
    assert table.column("id").tolist() == list(range(12))
    assert table.column("label").tolist() == y.tolist()
    bad = np.array(want) != "ok"
    for name in ("lc", "loss", "lc_std", *(["path_log_probs"] if return_path else [])):
        values = table.column(name)
        assert np.isnan(values[bad]).all()
        assert np.isfinite(values[~bad]).all()
    if return_path:
        p = np.exp(table.column("path_log_probs")[~bad].astype(np.float64))
        np.testing.assert_allclose(p.mean(1), table.column("lc")[~bad], atol=1e-6)
    assert ("path_log_probs" in table.table.column_names) == return_path


def test_a_class_that_was_not_fitted_is_a_status():
    x, y = data(12, 3)
    scorer = small().fit(Memory(x, y))
    y[4] = 9
    rows = scorer.score_rows(next(Memory(x, y).batches(12)))
    assert rows.status[4] == "bad_label"
    assert "class 9 has no prototype" in rows.detail[4]
    assert torch.isnan(rows.scores.lc).nonzero().tolist() == [[4]]
    with pytest.raises(ValueError, match=r"labels\[4\]: class 9 has no prototype"):
        scorer.score_batch((x, y))


def test_a_class_without_a_sample_is_not_in_the_softmax():
    x, y = data(12, 3)
    y[y == 1] = 2
    scores = small().fit(Memory(x, y)).score_batch((x, y))
    again = small().fit(Memory(x, y // 2)).score_batch((x, y // 2))
    assert torch.equal(scores.lc, again.lc)


def test_edge_cases():
    x, y = data()
    one_point = lc.LearningPath.explicit([0.5])
    for head in ("prototype", "linear"):
        scorer = lc.Scorer(Network(), head=head, path=one_point).fit(Memory(x, y))
        assert scorer.score_batch((x, y)).log_probs.shape == (1, 12)  # K = 1
        empty = scorer.score_batch((x[:0], y[:0]))
        assert (empty.lc.shape, empty.loss.shape, empty.log_probs.shape) == ((0,), (0,), (1, 0))
        rotated = x.transpose(2, 3)
        assert not rotated.is_contiguous()
        torch.testing.assert_close(
            scorer.score_batch((rotated, y)).lc,
            scorer.score_batch((rotated.contiguous(), y)).lc,
            rtol=0,
            atol=1e-6,
        )
        half = x.bfloat16()  # the input is widened to the model's dtype
        assert torch.equal(
            scorer.score_batch((half, y)).lc, scorer.score_batch((half.float(), y)).lc
        )
    one_class = small().fit(Memory(x, y * 0)).score_batch((x, y * 0))  # C = 1
    assert torch.equal(one_class.lc, torch.ones(12))
    assert torch.equal(one_class.loss, torch.zeros(12))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("head", "which"), [("prototype", "body"), ("linear", "body"), ("linear", "head")]
)
def test_models_of_other_dtypes(dtype, head, which):
    x, y = data()
    masking = lc.Masking(weights=which)
    path = lc.LearningPath.explicit([0.9, 0.6])
    scores, precise = (
        lc.Scorer(Network().to(t), head=head, path=path, masking=masking)
        .fit(Memory(x, y))
        .score_batch((x, y))
        for t in (dtype, torch.float32)
    )
    assert scores.lc.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-5 if dtype == torch.float64 else 0.03
    torch.testing.assert_close(scores.lc.float(), precise.lc, rtol=0, atol=tolerance)


def test_a_feature_set_and_a_linear_head():
    generator = torch.Generator().manual_seed(4)
    head = nn.Linear(17, 3)
    x, y = torch.randn(9, 17, generator=generator), torch.arange(9) % 3
    x[4, 2] = float("inf")
    masking = lc.Masking("random", weights="head", seed=2)
    scorer = lc.Scorer(head, head="linear", path=lc.LearningPath.linear(4, 0.1), masking=masking)
    rows = scorer.score_rows(next(Memory(x, y).batches(9)))
    assert rows.status == ["ok"] * 4 + ["non_finite"] + ["ok"] * 4
    with pytest.raises(ValueError, match=r"inputs must have shape \(N, 17\)"):
        scorer.score_batch((x[:, :5], y))
    before = rows.scores.lc.clone()
    with torch.no_grad():
        head.weight.mul_(-1)  # the weights prepared before are not used again
    after = scorer.score_batch((x, y)).lc
    flipped = lc.Scorer(head, head="linear", path=scorer.path, masking=masking).score_batch((x, y))
    assert torch.equal(after.nan_to_num(), flipped.lc.nan_to_num())
    assert not torch.allclose(after.nan_to_num(), before.nan_to_num())


def test_a_head_of_another_width_is_an_error():
    x, y = data()
    source = Memory(x, y)
    source.classes = ["a", "b", "c"]
    with pytest.raises(ValueError, match="the head has 4 classes but the data have 3"):
        lc.score(small("linear"), source)
    assert len(lc.score(small("prototype"), source)) == 12
    fitted = small().fit(Memory(x, y))
    narrow = Prototypes(
        fitted.prototypes.labels, fitted.prototypes.means[:, :5], fitted.prototypes.counts
    )
    with pytest.raises(ValueError, match="features of width 9, but the prototypes have 5"):
        small().use_prototypes(narrow).score_batch((x, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "mlp"}, "head must be one of"),
        ({"logit": "dot"}, "logit must be one of"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"masking": lc.Masking(weights="head")}, 'weights="head" changes no feature'),
        ({"device": "cpu"}, "move the module yourself"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        lc.Scorer(Network(), **arguments)


@pytest.mark.parametrize("head", ["prototype", "knn"])
@pytest.mark.parametrize(
    ("model", "weights"),
    [
        (nn.Linear(9, 3), "all"),
        (nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 3)), lambda name, _: name == "1"),
    ],
    ids=["a head", "a function"],
)
def test_masks_that_a_head_does_not_see_are_refused(model, weights, head):
    x = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float32)
    y = np.arange(12) % 3
    scorer = lc.Scorer(model, head=head, masking=lc.Masking(weights=weights))
    message = f"every weight that is masked is in the classifier .* which a {head} head does not"
    with pytest.raises(ValueError, match=message):
        lc.score(scorer, (x, y))
    if isinstance(model, nn.Sequential):  # drops features, which the head does see
        lc.score(
            lc.Scorer(model, head=head, masking=lc.Masking("dropout", weights=weights)), (x, y)
        )
    seen = lc.Scorer(model, head="linear", masking=lc.Masking(weights=weights))
    assert (lc.score(seen, (x, y)).column("lc_std") > 0).all()


def test_misuse_is_said():
    x, y = data()
    with pytest.raises(ValueError, match="model must be a module"):
        lc.Scorer(3)
    with pytest.raises(ValueError, match=r"call fit\(source\) first"):
        small().score_batch((x, y))
    with pytest.raises(ValueError, match=r"labels must be integers of shape \(12,\)"):
        small("linear").score_batch((x, y[:3]))
    with pytest.raises(ValueError, match="at least one row"):
        small().fit(Memory(x, y, ["unreadable"] * 12))
    with pytest.raises(ValueError, match="needs a model whose classifier is a Linear module"):
        lc.Scorer(nn.Conv2d(3, 4, 1), head="linear", masking=lc.Masking(weights="all")).score_batch(
            (x, y)
        )


@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_a_scorer_pickles_by_its_configuration(head, tmp_path):
    x, y = data()
    checkpoint = tmp_path / "weights.pt"
    torch.save(Network(3).state_dict(), checkpoint)
    spec = ModelSpec("helpers.networks:Network", str(checkpoint))
    scorer = lc.Scorer(spec, head=head, path=lc.LearningPath.gauss(2)).fit(Memory(x, y))
    content = pickle.dumps(scorer)
    assert len(content) < 4000
    again = pickle.loads(content)
    assert again._model is None
    assert torch.equal(again.score_batch((x, y)).lc, scorer.score_batch((x, y)).lc)
    assert again.describe() == scorer.describe()


def test_a_scorer_of_a_module_pickles_with_it():
    x, y = torch.randn(4, 5), torch.arange(4) % 3
    scorer = lc.Scorer(nn.Linear(5, 3), head="linear", masking=lc.Masking(weights="head"))
    again = pickle.loads(pickle.dumps(scorer))
    assert torch.equal(again.score_batch((x, y)).lc, scorer.score_batch((x, y)).lc)


def test_the_description_follows_what_the_scores_depend_on():
    def described(**more):
        return lc.Scorer(Network(more.pop("seed", 0)), **more).describe()

    variants = [
        described(),
        described(seed=1),
        described(path=lc.LearningPath.gauss(3)),
        described(masking=lc.Masking(scope="layer")),
        described(masking=lc.Masking(weights=lambda name, module: name == "inner")),
        described(masking=lc.Masking(weights=lambda name, module: name == "conv")),
        described(head="linear"),
        described(logit="cosine"),
        described(temperature=2.0),
    ]
    assert described() == variants[0]
    assert all(variants.count(one) == 1 for one in variants)


def test_score_is_the_same_in_shards_and_resumes(tmp_path):
    x, y = data(23)
    source = Memory(x, y)
    scorer = small()
    memory = lc.score(scorer, source, batch_size=4)
    seen = []

    def stop_in_the_third_shard(phase, done, rows):
        seen.append((phase, done, rows))
        if phase == "scores" and done > 12:
            raise KeyboardInterrupt

    out = tmp_path / "scores"
    with pytest.raises(KeyboardInterrupt):
        lc.score(scorer, source, out, batch_size=4, shard_rows=6, progress=stop_in_the_third_shard)
    assert [one for one in seen if one[0] == "prototypes"][-1] == ("prototypes", 23, 23)
    seen.clear()
    table = lc.score(
        scorer, source, out, batch_size=4, shard_rows=6, progress=lambda *one: seen.append(one)
    )
    assert seen[0] == ("scores", 16, 23)  # two shards and the prototypes were kept
    assert seen[-1] == ("scores", 23, 23)
    assert table.column("id").tolist() == list(range(23))
    np.testing.assert_allclose(table.column("lc"), memory.column("lc"), atol=2e-6)
    assert table.metadata == memory.metadata
    assert scorer.prototypes is None  # the scorer passed in was not fitted

    with pytest.raises(ValueError, match=r"another run.*masking.scope: 'global' -> 'layer'"):
        lc.score(small(masking=lc.Masking(scope="layer")), source, out, shard_rows=6)
    seen.clear()
    lc.score(scorer, source, out, shard_rows=6, progress=lambda *one: seen.append(one))
    assert seen == []  # all is done: nothing runs


def test_prototypes_of_other_data_are_part_of_the_description(tmp_path):
    x, y = data()
    fitted = small().fit(Memory(*data(seed=1)))
    table = lc.score(fitted, Memory(x, y), tmp_path / "a")
    assert table.metadata["head"]["prototypes"] == fitted.prototypes.digest
    with pytest.raises(ValueError, match=r"another run.*head.prototypes"):
        lc.score(small(), Memory(x, y), tmp_path / "a")


@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_an_empty_data_set_gives_an_empty_table(head, tmp_path):
    x, y = data()
    for out in (None, tmp_path / "scores"):
        table = lc.score(small(head), Memory(x[:0], y[:0]), out, return_path=True)
        assert len(table) == 0
        assert table.column("lc").shape == (0,)


def test_checkpoint_and_image_size_of_a_model_that_a_text_names(tmp_path):
    name = "timm/test_resnet"
    weights = ModelSpec(name, checkpoint=_checkpoint(tmp_path)).load().model.state_dict()
    scorer = lc.Scorer(name, checkpoint=tmp_path / "weights.pt", image_size=48, device="auto")
    assert scorer.spec == ModelSpec(name, str(tmp_path / "weights.pt"), 48)
    for key, value in scorer.model.state_dict().items():
        assert torch.equal(value.cpu(), weights[key])
    image = PIL.Image.new("RGB", (60, 40))
    assert scorer.transform(image).shape == (3, 48, 48)
    with pytest.raises(ValueError, match="are for a model that a text names"):
        lc.Scorer(nn.Linear(2, 2), image_size=48)


def _checkpoint(folder):
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = timm.create_model("test_resnet", pretrained=False)
    torch.save(model.state_dict(), folder / "weights.pt")
    return str(folder / "weights.pt")


def test_a_text_is_no_path():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"got str: write LearningPath.parse\('gauss:4'\)"):
        lc.Scorer(model, path="gauss:4")
    with pytest.raises(ValueError, match="path must be a LearningPath, got list"):
        lc.Scorer(model).with_path([1.0])
