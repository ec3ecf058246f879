"""Rows one after the other, without padding: the scores of padded rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.token_rows import random_rows, row
from lc_engine.language import forward as forward_module
from lc_engine.language import packed_attention
from lc_engine.language.batching import pack, usage_of
from lc_engine.language.packed_attention import Spans, is_packed_there
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.ops import FallbackWarning, contract

CPU = torch.device("cpu")
PATH = lc.LearningPath.explicit([1.0, 0.8, 0.6])


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_every_target_is_there_once_and_nothing_is_padded(share, budget):
    rows = random_rows(0)
    groups = pack(rows, budget, 8, share, CPU, pads=False)
    found = set()
    for group in groups:
        for batch in group.batches:
            spans = batch.spans
            assert batch.ids.shape == (1, sum(spans.lengths))
            assert batch.ids.numel() <= budget or batch.row_count == 1
            ends = np.cumsum(spans.lengths)
            for at, target, i in zip(batch.positions, batch.targets, batch.rows, strict=True):
                begin = ([0, *ends])[int(np.searchsorted(ends, int(at), side="right"))]
                seen = [*group.prefix.tolist(), *batch.ids[0, begin : at + 1].tolist()]
                assert rows[i].ids[: len(seen)].tolist() == seen  # all tokens before it
                assert rows[i].ids[len(seen)] == target
                assert spans.positions[0, at] == len(seen) - 1
                found.add((int(i), len(seen)))
    assert len(found) == sum(int(one.response.sum()) for one in rows)
    usage = usage_of(rows, groups)
    assert usage.padding == 0
    assert usage.computed <= usage.asked
    assert pack([], 9, 8, share, CPU, pads=False) == pack([], 9, 8, share, CPU)


def test_a_prefix_is_shared_if_that_saves_more_than_two_forwards():
    rows = [row([*range(20), 100 + i, 7, 8], 21) for i in range(6)]
    for overhead, shared in ((50, False), (49, True)):  # five rows save 20 tokens each
        groups = pack(rows, 1000, overhead, True, CPU, pads=False)
        assert [len(group.prefix) for group in groups] == ([20] if shared else [0])
        assert len(pack(rows, 1000, overhead, True, CPU)[0].prefix) == 20


def test_spans_name_the_keys_of_each_row():
    spans = Spans.of([2, 1, 3], 2, CPU)
    assert spans.positions.tolist() == [[2, 3, 2, 2, 3, 4]]
    assert spans.starts.tolist() == [0, 2, 3, 6]
    assert spans.key_starts.tolist() == [0, 4, 7, 12]
    assert spans.keys.tolist() == [0, 1, 2, 3, 0, 1, 4, 0, 1, 5, 6, 7]
    assert Spans.of([2], 0, CPU).keys is None


@pytest.fixture
def packed(monkeypatch):
    """Runs rows without padding on the CPU too."""
    monkeypatch.setattr(forward_module, "is_packed_there", lambda *_: True)


def rows_of_text(count=12):
    system = {"role": "system", "content": "be brief and kind"}
    rows = []
    for i in range(count):
        said = [{"role": "user", "content": "hello " + "x" * (i % 5)}]
        said = [system, *said] if i % 3 else said
        rows.append({"messages": [*said, {"role": "assistant", "content": "hell " * (1 + i % 4)}]})
    return rows


def scored(model, **options):
    scorer = CausalLMScorer(model, tiny.tokenizer(), path=PATH, **options)
    table = lc.score(scorer, rows_of_text())
    return table, scorer


def assert_close(one, other, atol=2e-6):
    for name in ("lc", "loss", "perplexity", "entropy"):
        np.testing.assert_allclose(one.column(name), other.column(name), rtol=1e-5, atol=atol)
    np.testing.assert_array_equal(one.column("status"), other.column("status"))


def qwen():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=270, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=1, head_dim=8, initializer_range=0.2,
                max_position_embeddings=256,
            )
        ).eval()  # fmt: skip


@pytest.mark.parametrize("make", [tiny.model, lambda: tiny.model(num_key_value_heads=4), qwen])
@pytest.mark.parametrize("budget", [40, None])
def test_scores_are_those_of_padded_rows(monkeypatch, make, budget):
    padded, before = scored(make(), token_budget=budget)
    monkeypatch.setattr(forward_module, "is_packed_there", lambda *_: True)
    found, scorer = scored(make(), token_budget=budget)
    assert_close(found, padded)
    assert scorer.usage.padding == 0
    assert before.usage.padding > 0 or budget
    assert scorer.usage.asked == before.usage.asked
    groups = scorer._load().forward.pack(list(_tokens(scorer))).groups
    assert any(len(group.prefix) for group in groups), "no prefix is shared"


def _tokens(scorer):
    (batch,) = scorer.transform.open_source(rows_of_text()).batches(12)
    return batch.inputs


def test_features_tokens_and_masked_heads_are_those_of_padded_rows(monkeypatch, tmp_path):
    options = {"masking": lc.Masking(scope="layer", weights="all"), "ifd": True}
    padded, before = scored(tiny.model(tied=False), **options)
    nll = before.token_nll(_tokens(before))
    monkeypatch.setattr(forward_module, "is_packed_there", lambda *_: True)
    found, scorer = scored(tiny.model(tied=False), **options)
    assert_close(found, padded)
    np.testing.assert_allclose(found.column("ifd"), padded.column("ifd"), rtol=1e-4)
    for one, other in zip(scorer.token_nll(_tokens(scorer)), nll, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    table = lc.score(scorer, rows_of_text(), tmp_path / "out", features=True)
    monkeypatch.undo()
    other = lc.score(before, rows_of_text(), tmp_path / "other", features=True)
    np.testing.assert_allclose(
        np.asarray(table.features()), np.asarray(other.features()), rtol=2e-2, atol=2e-3
    )


def test_the_model_keeps_its_own_attention(packed):
    model = tiny.model()
    before = model.config._attn_implementation
    _, scorer = scored(model)
    assert model.config._attn_implementation == before
    packing = scorer._load().forward._packing
    with packing.over(Spans.of([2], 0, CPU)):
        assert model.config._attn_implementation != before
    with pytest.raises(KeyError), packing.over(Spans.of([2], 0, CPU)):
        raise KeyError
    assert model.config._attn_implementation == before


def test_attention_that_does_more_is_padded_and_named_once(monkeypatch, packed):
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=270, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, attn_logit_softcapping=1.0,
        final_logit_softcapping=None, layer_types=["full_attention"] * 2,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match=r"Gemma2Model cannot run rows without padding"):
        found, scorer = scored(model)
    monkeypatch.undo()
    assert_close(found, scored(model)[0], atol=0)
    assert scorer.usage.padding > 0


def test_wrong_hidden_states_are_noticed(monkeypatch, packed):
    own = packed_attention._one_by_one

    def forgets_the_rows(query, key, value, spans, scaling):
        whole = Spans.of([sum(spans.lengths)], 0, CPU)
        return own(query, key, value, whole, scaling)

    monkeypatch.setattr(packed_attention, "_one_by_one", forgets_the_rows)
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match="its hidden states differ"):
        _, scorer = scored(tiny.model())
    assert scorer.usage.padding > 0


def test_dropout_knows_tokens_by_their_place_in_a_padded_batch(packed):
    table, scorer = scored(tiny.model(), masking=lc.Masking("dropout"))
    assert scorer.usage.padding > 0
    assert table.status_counts() == {"ok": 12}


def test_only_where_torch_has_a_kernel():
    assert is_packed_there(torch.device("cuda"), torch.bfloat16)
    assert not is_packed_there(torch.device("cuda"), torch.float32)
    assert not is_packed_there(CPU, torch.bfloat16)
    assert scored(tiny.model())[1]._load().forward._packing is None


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("heads", [1, 4])
def test_the_kernel_is_called_with_what_this_torch_has(monkeypatch, grouped, heads):
    """A stand-in of the kernel of each signature, which computes row by row."""
    spans = Spans.of([3, 1, 4], 2, CPU)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(8, 4, 8, generator=generator)
    key, value = (torch.randn(14, heads, 8, generator=generator) for _ in range(2))
    expected = packed_attention._one_by_one(query, key, value, spans, 0.3)

    def attend(q, k, v, starts, key_starts, longest, most_keys, scale, asked):
        assert (starts is spans.starts, key_starts is spans.key_starts) == (True, True)
        assert (longest, most_keys) == (4, 6)
        assert asked
        return packed_attention._one_by_one(q, k, v, spans, scale)

    def now(q, k, v, s, t, a, b, *, scale, window_size, enable_gqa=False, num_splits=None):
        assert enable_gqa or q.shape[1] == k.shape[1]
        assert num_splits == 1
        return attend(q, k, v, s, t, a, b, scale, window_size == (-1, 0))

    def before(q, k, v, s, t, a, b, *, is_causal=False, scale=None):
        assert q.shape[1] == k.shape[1]
        return attend(q, k, v, s, t, a, b, scale, is_causal)

    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", now if grouped else before)
    found = packed_attention._on_gpu(query, key, value, spans, 0.3)
    torch.testing.assert_close(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
def test_rows_on_a_gpu_are_not_padded_and_score_as_on_a_cpu():
    wide = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = tiny.model(**wide, initializer_range=0.05).to(torch.bfloat16)
    there, scorer = scored(model.cuda())
    assert scorer.usage.padding == 0
    here, _ = scored(tiny.model(**wide, initializer_range=0.05))
    np.testing.assert_allclose(there.column("loss"), here.column("loss"), atol=5e-2)


def test_a_token_that_the_head_lacks_is_refused_on_the_host():
    scorer = CausalLMScorer(tiny.model(), tiny.tokenizer(), path=PATH)
    with pytest.raises(ValueError, match=r"a response has the token 270, but .* has 270"):
        scorer.token_nll([row([1, 2, 270], 2)])
