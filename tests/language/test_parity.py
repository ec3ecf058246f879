from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine import ops
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.language.tuning import HEAD_TOKENS
from lc_engine.ops.contract import FallbackWarning

# Logits of about 20 in float32 carry 2e-6 of rounding, which a mean NLL inherits.
CLOSE = 2e-5
PATH = lc.LearningPath.explicit([1.0, 0.7, 0.35])


@pytest.fixture(scope="module")
def rows():
    return tiny.random_rows(np.random.default_rng(0), 24)


def batch_of(rows, scorer):
    return next(scorer.transform.open_source(rows).batches(len(rows)))


def scored(rows, model=None, **options):
    scorer = CausalLMScorer(model or tiny.model(), tiny.tokenizer(), **{"path": PATH} | options)
    return scorer, batch_of(rows, scorer), lc.score(scorer, rows, return_path=True)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("kind", "scope", "which"),
    [
        ("magnitude", "layer", "body"),
        ("magnitude", "global", "body"),
        ("magnitude", "layer", "all"),
        ("magnitude", "global", "all"),
        ("magnitude", "layer", "head"),
        ("random", "layer", "body"),
        ("random", "global", "all"),
        ("random", "layer", "head"),
        ("dropout", "layer", "body"),
    ],
)
@pytest.mark.slow
def test_every_family_agrees_with_the_plain_loop(rows, kind, scope, which, tied):
    masking = lc.Masking(kind, scope=scope, weights=which, seed=7)
    model = tiny.model(tied)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scorer, batch, table = scored(rows, model, masking=masking)
    loop = tiny.PlainLoop(tiny.model(tied), PATH.capacities, kind, scope, which, seed=7)
    nll = loop.nll(batch.inputs).numpy()
    assert np.median(np.ptp(nll, axis=0)) > 0.05  # the sub-models do differ
    np.testing.assert_allclose(table.column("path_log_probs").T, -nll, atol=CLOSE)
    np.testing.assert_allclose(table.column("loss"), nll.mean(0), atol=CLOSE)
    np.testing.assert_allclose(table.column("lc"), np.exp(-nll).mean(0), atol=CLOSE)
    np.testing.assert_allclose(table.column("lc_std"), np.exp(-nll).std(0), atol=CLOSE)
    np.testing.assert_allclose(table.column("perplexity"), np.exp(nll[0]), rtol=CLOSE)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert scorer.usage.computed < scorer.usage.asked + scorer.usage.padding  # a prefix was shared


def test_a_given_saliency_masks_body_and_head(rows):
    generator = torch.Generator().manual_seed(3)
    model = tiny.model(tied=False)
    names = [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    saliency = {
        name: torch.rand(model.get_parameter(name).shape, generator=generator) for name in names
    }
    masking = lc.Masking("given", scope="layer", weights="all", saliency=saliency)
    _, batch, table = scored(rows, model, masking=masking, path=lc.LearningPath.explicit([0.6]))
    masked = tiny.model(tied=False)
    for name in names:
        weight, score = masked.get_parameter(name).data, saliency[name]
        bound = np.sort(score.numpy().ravel())[::-1][round(0.6 * score.numel()) - 1]
        weight[score < float(bound)] = 0
    nll = tiny.PlainLoop(masked, [1.0]).nll(batch.inputs).numpy()
    np.testing.assert_allclose(table.column("loss"), nll[0], atol=CLOSE)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("which", ["body", "head", "all"])
def test_tied_weights_are_masked_to_the_exact_count(rows, which, scope):
    def of_few_levels():
        model = tiny.model(tied=False)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data.mul_(8).round_().div_(8)
        return model

    model, path = of_few_levels(), lc.LearningPath.explicit([0.6])
    masking = lc.Masking(scope=scope, weights=which)
    _, batch, table = scored(rows, model, masking=masking, path=path)
    weights = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and which in ("all", "head" if name == "lm_head" else "body")
    }
    masks, masked, kept = masking.masks(weights, path), of_few_levels(), 0
    for name, levels, bound in zip(weights, masks.saliency, masks.thresholds[0], strict=True):
        masked.get_parameter(name).data[levels < bound] = 0
        kept += int((levels >= bound).sum())
    assert kept == pytest.approx(0.6 * sum(w.numel() for w in weights.values()), abs=len(weights))
    nll = tiny.PlainLoop(masked, [1.0]).nll(batch.inputs).numpy()
    np.testing.assert_allclose(table.column("loss"), nll[0], atol=CLOSE)


def test_entropy_and_ifd_agree_with_full_logits(rows):
    _, batch, table = scored(rows, ifd=True, path=lc.LearningPath.explicit([0.5]))
    model, start = tiny.model(), tiny.tokenizer().bos_token_id
    for i, (ids, response, _) in enumerate(batch.inputs):
        targets = np.flatnonzero(response)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids)[None]).logits[0].double()
            answer = torch.from_numpy(np.insert(ids[targets], 0, start))
            alone = model(answer[None]).logits[0].double()
        log_p = logits.log_softmax(-1)[targets - 1]
        nll = -log_p[range(len(targets)), ids[targets]].mean()
        nll_alone = torch.nn.functional.cross_entropy(alone[:-1], answer[1:])
        row = {name: table.column(name)[i] for name in ("entropy", "perplexity", "ifd")}
        assert row["entropy"] == pytest.approx(
            float(-(log_p.exp() * log_p).sum(1).mean()), rel=CLOSE
        )
        assert row["perplexity"] == pytest.approx(float(nll.exp()), rel=CLOSE)
        assert row["ifd"] == pytest.approx(float(nll / nll_alone), rel=CLOSE)
        assert table.column("token_count")[i] == len(targets)


@pytest.mark.parametrize("kind", ["magnitude", "dropout"])
@pytest.mark.slow
def test_scores_of_a_row_agree_in_any_batch_within_rounding(rows, kind):
    options = {"masking": lc.Masking(kind, scope="layer"), "ifd": True}
    _, _, together = scored(rows, **options)
    scorer, _, small = scored(rows, token_budget=1, **options)
    one_by_one = [lc.score(scorer, [row], return_path=True) for row in rows]
    for name in ("lc", "loss", "lc_std", "path_log_probs", "perplexity", "entropy", "ifd"):
        want = together.column(name)
        np.testing.assert_allclose(small.column(name), want, rtol=CLOSE, atol=CLOSE)
        alone = np.concatenate([table.column(name) for table in one_by_one])
        np.testing.assert_allclose(alone, want, rtol=CLOSE, atol=CLOSE)


def test_a_shared_prefix_never_covers_what_predicts_a_response():
    rows = [{"prompt": "hello", "completion": f"the same start, then {i}"} for i in range(6)]
    scorer, batch, table = scored(rows)
    nll = tiny.PlainLoop(tiny.model(), PATH.capacities).nll(batch.inputs).numpy()
    np.testing.assert_allclose(table.column("path_log_probs").T, -nll, atol=CLOSE)
    first = int(batch.inputs[0].response.argmax())
    rest = sum(len(row.ids) - 1 - (first - 1) for row in batch.inputs)
    usage = scorer.usage
    assert usage.computed - usage.padding == len(PATH) * (rest + first - 1)


SMALL = {
    "vocab_size": 270,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def made(kind, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind(config).eval()


def expected(model, batch):
    found = []
    for ids, response, _ in batch.inputs:
        with torch.no_grad():
            log_p = model(torch.from_numpy(ids)[None]).logits[0].double().log_softmax(-1)
        targets = np.flatnonzero(response)
        found.append(-float(log_p[targets - 1, ids[targets]].mean()))
    return found


def test_gpt2_is_masked_in_every_layer(rows):
    config = GPT2Config(
        vocab_size=270, n_positions=256, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = made(GPT2LMHeadModel, config)
    masking = lc.Masking(scope="layer")
    _, batch, table = scored(rows, model, masking=masking, path=lc.LearningPath.explicit([0.6]))
    masked = made(GPT2LMHeadModel, config)
    for name, weight in masked.named_parameters():
        if name.endswith(("attn.weight", "proj.weight", "fc.weight")):
            size = weight.detach().abs().flatten().sort(descending=True).values
            weight.data[weight.abs() < size[round(0.6 * len(size)) - 1]] = 0
    np.testing.assert_allclose(table.column("loss"), expected(masked, batch), atol=CLOSE)


def test_a_soft_capped_head_computes_its_own_logits(rows):
    model = made(Gemma2ForCausalLM, Gemma2Config(**SMALL, final_logit_softcapping=2.0))
    with pytest.warns(FallbackWarning, match="Gemma2ForCausalLM does more with its vocabulary"):
        _, batch, table = scored(rows, model, path=lc.LearningPath.explicit([1.0]))
    np.testing.assert_allclose(table.column("loss"), expected(model, batch), atol=CLOSE)
    with (
        pytest.warns(FallbackWarning),
        pytest.raises(ValueError, match='cannot be masked: use weights="body"'),
    ):
        scored(rows, model, masking=lc.Masking(scope="layer", weights="all"))


def test_a_sliding_window_sees_every_row_whole(rows):
    model = made(MistralForCausalLM, MistralConfig(**SMALL, sliding_window=16))
    scorer, batch, table = scored(rows, model, path=lc.LearningPath.explicit([1.0]))
    assert scorer.usage.computed == scorer.usage.asked + scorer.usage.padding
    np.testing.assert_allclose(table.column("loss"), expected(model, batch), atol=CLOSE)


def test_a_row_without_a_finite_score_is_non_finite(rows):
    model = tiny.model(tied=False)
    token = tiny.tokenizer()("漢", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = torch.nan
    bad = {"instruction": "漢", "input": "", "output": "x"}
    fine = {"instruction": "hello", "input": "", "output": "there"}
    _, _, table = scored([fine, bad, fine], model)
    assert table.column("status").tolist() == ["ok", "non_finite", "ok"]
    assert "not finite" in table.column("detail")[1]
    assert np.isnan(table.column("lc")[1])
    assert np.isfinite(table.column("lc")[[0, 2]]).all()


def test_the_head_scores_many_tokens_at_a_time(rows, monkeypatch):
    asked, real = [], ops.token_nll

    def counted(hidden, *others, **options):
        asked.append(hidden.shape[1])
        return real(hidden, *others, **options)

    monkeypatch.setattr(ops, "token_nll", counted)
    found, whole = [], lc.LearningPath.explicit([1.0])
    for least in (1, 100):
        monkeypatch.setitem(HEAD_TOKENS, "cpu", least)
        asked.clear()
        found.append(scored(rows, token_budget=150, ifd=True, path=whole)[2])
        assert len(asked) > 4
        # A pass over the prompted rows, and one over the responses alone.
        assert sum(few < least for few in asked) <= 2
    for name in ("lc", "entropy", "ifd", "mean_delta"):
        np.testing.assert_allclose(found[0].column(name), found[1].column(name), atol=1e-5)
