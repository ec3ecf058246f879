from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.feature_run import contents, run, scorer, write_features
from lc_engine.data.open import open_source
from lc_engine.data.run.ledger import Ledger
from lc_engine.data.table import ScoreTable
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring import cut
from lc_engine.scoring.cut import Cut, cut_by_cost, cut_of


@pytest.mark.parametrize(
    ("seconds", "given", "want"),
    [
        (0.0, False, Cut(128, 65536)),
        (1e-4, False, Cut(128, 65536)),  # ten minutes' worth of rows would fit a minute
        (0.01, False, Cut(128, 4096)),  # 6,000 rows a minute
        (0.2, False, Cut(128, 256)),
        (1.0, False, Cut(32, 32)),  # 60 rows a minute
        (1.0, True, Cut(128, 128)),
        (1e3, False, Cut(8, 8)),
    ],
)
def test_a_part_is_about_a_minute_of_whole_batches(seconds, given, want):
    assert cut_by_cost(seconds, 50_000, Cut(128, 65536), batch_is_given=given) == want


def test_a_folder_does_not_get_more_parts_than_it_can_list():
    batch, part = cut_by_cost(1.0, 10**7, Cut(128, 65536), batch_is_given=False)
    assert part % batch == 0
    assert 9_000 < 10**7 / part <= 10_000


def cost(model, x, **options):
    return lc.Scorer(model, **options).operations_per_row(x)[0]


def test_the_cost_of_a_row():
    head = nn.Linear(10, 7)
    path = lc.LearningPath.linear(5, 0.2, 1.0)
    x = torch.randn(3, 10)
    only_head = lc.Masking(weights="head")
    assert cost(head, x, head="linear", path=path, masking=only_head) == 2 * 70 * 5
    two = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 7))
    assert cost(two, x, path=path) == 2 * (200 + 140) * 5
    assert cost(two, x, head="linear", path=path, masking=only_head) == 2 * (200 + 140 * 5)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head_of(8))
    assert cost(network, torch.randn(1, 3, 64, 32), path=path) == 2 * (216 + 56) * 8 * 5


def head_of(width):
    return nn.Linear(width, 7)


def test_the_cost_of_a_conversation_is_that_of_its_tokens():
    rows = tiny.random_rows(np.random.default_rng(0), 20)
    language = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    source = open_source(rows, transform=language.transform)
    (batch,) = source.batches(20)
    operations, device = language.operations_per_row(batch.inputs)
    weights = sum(p.numel() for p in language.model.parameters() if p.dim() > 1)
    tokens = np.mean([len(row.ids) for row in batch.inputs])
    assert operations == pytest.approx(2 * weights * tokens * len(language.path))
    assert device.type == "cpu"


@pytest.fixture
def slow(monkeypatch):
    """Let a row of these small models seem to take seconds."""
    monkeypatch.setattr(cut, "_PER_THREAD", 1.0)


@pytest.mark.slow
def test_a_slow_language_model_commits_before_its_window_of_rows_is_full(tmp_path, slow):
    rows = tiny.random_rows(np.random.default_rng(0), 40)
    language = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    seen = []
    whole = lc.score(language, rows)
    table = lc.score(language, rows, tmp_path / "out", progress=lambda *one: seen.append(one[1]))
    assert len(list((tmp_path / "out").glob("part-*"))) == 5
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert (manifest["batch_rows"], manifest["shard_rows"]) == (8, 8)
    np.testing.assert_allclose(table.column("lc"), whole.column("lc"), rtol=1e-5)
    assert seen == sorted(seen)
    assert len(set(seen)) > 20


@pytest.mark.slow
def test_a_run_that_continues_on_a_faster_machine_keeps_its_cut(tmp_path, monkeypatch):
    rows = tiny.random_rows(np.random.default_rng(0), 40)
    language = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())

    def stop(phase, done, total):
        if done > 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cut, "_PER_THREAD", 1.0)
        lc.score(language, rows, tmp_path / "undisturbed")
        with pytest.raises(KeyboardInterrupt):
            lc.score(language, rows, tmp_path / "out", progress=stop)
    before = contents(tmp_path / "out")
    assert 0 < len([name for name in before if name.startswith("part")]) < 5
    lc.score(language, rows, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_data_without_a_readable_row_get_the_largest_cut():
    x = np.full((30, 12), np.nan, np.float32)
    source = open_source((x, np.zeros(30, np.int64)))
    assert cut_of(scorer(), source, 7, 11, batch_is_given=False) == Cut(7, 11)
    assert cut_of(object(), source, 7, 11, batch_is_given=False) == Cut(7, 11)


def test_the_bytes_of_the_whole_table_do_not_depend_on_the_cut(tmp_path):
    write_features(tmp_path)
    written = set()
    for rows in (7, 64, 100, 999, None):
        run(tmp_path, tmp_path / f"out{rows}", shard_rows=rows, return_path=True)
        path = tmp_path / f"{rows}.parquet"
        ScoreTable.read(tmp_path / f"out{rows}").write(path)
        written.add(path.read_bytes())
    assert len(written) == 1


def test_the_process_that_waits_does_not_score_the_last_shard_again(tmp_path, monkeypatch):
    write_features(tmp_path)
    scored, score_rows, commit = [], Scorer.score_rows, Ledger.commit

    def counted(self, batch, *rest, **options):
        scored.append(len(batch))
        return score_rows(self, batch, *rest, **options)

    def slowly(self, *given):
        time.sleep(0.5)
        commit(self, *given)

    monkeypatch.setattr(Scorer, "score_rows", counted)
    monkeypatch.setattr(Ledger, "commit", slowly)
    others = [threading.Thread(target=run, args=(tmp_path, tmp_path / "out")) for _ in range(2)]
    for one in others:
        one.start()
    for one in others:
        one.join()
    assert sum(scored) == 1000
