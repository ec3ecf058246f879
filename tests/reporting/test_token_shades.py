"""Tokens of responses, each with its NLL, for the rows that a person reads."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.pages_of_scores import HOSTILE, dense, payload, scored
from lc_engine.cli.main import run
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.reporting.token_shades import SHADES, _texts, shade_of

ANSWERS = ["hello there", "né – 日本 😀!", f"in the {HOSTILE}", "x", "hell in hell"]


@pytest.fixture
def scorer():
    return CausalLMScorer(
        tiny.model(), tiny.tokenizer(), path=lc.LearningPath.explicit([1.0, 0.8]), max_tokens=256
    )


def written(tmp_path, rows):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def plain_nll(model, ids, response):
    """−log p of every response token by a full softmax in float64."""
    with torch.no_grad():
        logits = model(torch.tensor(ids)[None]).logits[0].double()
    nll = -logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    return nll.numpy()[response[1:]]


def test_the_tokens_are_the_response_with_the_nll_of_the_whole_model(tmp_path, scorer):
    file = written(
        tmp_path, [{"prompt": f"Say {i}", "response": text} for i, text in enumerate(ANSWERS)]
    )
    table = lc.score(scorer, file)
    page = lc.report(table, file, out=tmp_path / "report.html", scorer=scorer)
    found = payload(page)
    assert found["shades"] == list(SHADES)
    for i, answer in enumerate(ANSWERS):
        turns = found["previews"][found["preview"][i]]["turns"]
        assert turns[0] == ["user", f"Say {i}", None]
        role, text, tokens = turns[1]
        assert (role, text) == ("assistant", answer)
        assert "".join(part for part, _ in tokens) == answer
        total = sum(nll for _, nll in tokens)
        mean = math.log(table.column("perplexity")[i])
        assert total == pytest.approx(mean * table.column("token_count")[i], abs=0.01 * len(answer))
    html = page.read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert "Tokens of a response are shaded" in html


def test_token_nll_is_that_of_a_full_softmax(scorer):
    rows = [
        one.tokens
        for one in scorer.transform.encode(
            [lc_conversation(f"Say {i}", text) for i, text in enumerate(ANSWERS)]
        )
    ]
    for row, nll in zip(rows, scorer.token_nll(rows), strict=True):
        want = plain_nll(scorer.model, row.ids.tolist(), row.response)
        np.testing.assert_allclose(nll, want, atol=1e-4)
    assert scorer.token_nll([]) == []


def lc_conversation(prompt, response):
    from lc_engine.language.formats import conversations

    return conversations({"prompt": prompt, "response": response}, "prompt_completion")[0]


def test_both_responses_of_a_pair_are_shaded(tmp_path, scorer):
    rows = [
        {"prompt": f"Say {i}", "chosen": text, "rejected": f"not {text}"}
        for i, text in enumerate(ANSWERS)
    ]
    file = written(tmp_path, rows)
    page = lc.report(lc.score(scorer, file), file, out=tmp_path / "report.html", scorer=scorer)
    found = payload(page)
    for i, answer in enumerate(ANSWERS):
        turns = found["previews"][found["preview"][i]]["turns"]
        assert [role for role, _, _ in turns] == ["user", "chosen", "rejected"]
        said = ["".join(part for part, _ in tokens) for _, _, tokens in turns[1:]]
        assert said == [answer, f"not {answer}"]
    assert '<span class="pair">' in page.read_text(encoding="utf-8")


def test_every_answer_of_a_conversation_gets_its_own_tokens(tmp_path, scorer):
    messages = [
        {"role": role, "content": f"{role} {i} hello"}
        for i, role in enumerate(["user", "assistant", "user", "assistant"])
    ]
    file = written(tmp_path, [{"messages": messages}] * 3)
    page = lc.report(lc.score(scorer, file), file, out=tmp_path / "report.html", scorer=scorer)
    (turns, *_) = [preview["turns"] for preview in payload(page)["previews"]]
    for _, text, tokens in turns:
        assert tokens is None or "".join(part for part, _ in tokens) == text
    assert [tokens is None for _, _, tokens in turns] == [True, False, True, False]


def test_a_character_of_several_tokens_is_one_piece_with_their_sum():
    tokenizer = tiny.tokenizer()
    text = "a日b"
    ids = np.array(tokenizer(text)["input_ids"])
    assert len(ids) == 5
    pieces = _texts(ids, np.arange(5.0), tokenizer.decode)
    assert pieces == [("a", 0.0), ("日", 6.0), ("b", 4.0)]


def test_shades_begin_at_their_numbers():
    assert [shade_of(nll) for nll in (0.0, 0.49, 0.5, 1.0, 1.9, 2.0, 4.0, 8.0, 50.0)] == [
        0, 0, 1, 2, 2, 3, 4, 5, 5
    ]  # fmt: skip


def test_another_model_than_that_of_the_scores_is_refused(tmp_path, scorer):
    file = written(tmp_path, [{"prompt": "Say", "response": "hello"}] * 2)
    table = lc.score(scorer, file)
    other = CausalLMScorer(tiny.model(tied=False), tiny.tokenizer(), path=scorer.path)
    with pytest.raises(ValueError, match="is not that of the scores"):
        lc.report(table, file, out=tmp_path / "report.html", scorer=other)
    with pytest.raises(ValueError, match="not those of a language model"):
        lc.report(scored(0), out=tmp_path / "report.html", scorer=scorer)


def test_without_a_model_the_page_says_how_to_get_shades(tmp_path, scorer):
    file = written(tmp_path, [{"prompt": "Say", "response": "hello"}] * 2)
    page = lc.report(lc.score(scorer, file), file, out=tmp_path / "report.html")
    assert "--shade-tokens" in page.read_text(encoding="utf-8")


def test_the_command_loads_the_model_of_the_run_to_shade(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.model().save_pretrained("model")
    tiny.tokenizer().save_pretrained("model")
    written(tmp_path, [{"prompt": f"Say {i}", "response": text} for i, text in enumerate(ANSWERS)])
    score = ["score", "--model", "model", "--data", "data.jsonl", "--path", "explicit:1.0,0.8"]
    assert run([*score, "--out", "scores"]) == 0
    assert run(["report", "scores", "--shade-tokens"]) == 0
    page = tmp_path / "report.html"
    assert "Tokens of a response are shaded" in page.read_text(encoding="utf-8")
    found, table = payload(page), lc.ScoreTable.read("scores")
    for i, answer in enumerate(ANSWERS):
        tokens = found["previews"][found["preview"][i]]["turns"][1][2]
        assert "".join(part for part, _ in tokens) == answer
        total = math.log(table.column("perplexity")[i]) * table.column("token_count")[i]
        assert sum(nll for _, nll in tokens) == pytest.approx(total, abs=0.01 * len(answer))
    dense("x.npy", "y.npy", "head.safetensors")
    other = [
        "--model",
        "head.safetensors",
        "--data",
        "x.npy",
        "--labels",
        "y.npy",
        "--out",
        "other",
    ]
    assert run(["score", *other]) == 0
    assert run(["report", "other", "--shade-tokens"]) == 2
    assert "--shade-tokens: the scores are not those of a language" in capsys.readouterr().err


def test_other_texts_than_those_scored_are_refused(tmp_path, scorer):
    file = written(tmp_path, [{"prompt": "Say", "response": "hello"}] * 2)
    table = lc.score(scorer, file)
    other = written(tmp_path, [{"prompt": "Say", "response": "hell"}] * 2)
    with pytest.raises(ValueError, match="these are not the data that were scored"):
        lc.report(table, other, out=tmp_path / "report.html")
