"""The whole model's features, kept beside the scores."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers.networks import Memory, SmallNet
from lc_engine.backbone.optimized import OptimizedCopy

ROWS = 30
HALF = lc.LearningPath.explicit([0.9, 0.7])
WITH_WHOLE = lc.LearningPath.explicit([0.7, 1.0])
WHOLE = lc.LearningPath.explicit([1.0])


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 3, 12, 12, generator=generator), torch.arange(ROWS) % 4


def scorer(head="prototype", path=HALF, **options):
    return lc.Scorer(SmallNet(0).eval(), head=head, path=path, **options)


def expected(data):
    with torch.inference_mode():
        return SmallNet(0).eval().body(data[0]).numpy()


def parts(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


CASES = {
    "class means": ("prototype", HALF, lc.Masking()),
    "capacity 1, distances": ("knn", WITH_WHOLE, lc.Masking()),
    "capacity 1, own classifier": ("linear", WITH_WHOLE, lc.Masking()),
    "nothing but capacity 1": ("linear", WHOLE, lc.Masking()),
    "only the head masked": ("linear", HALF, lc.Masking(weights="head")),
}


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_that_the_classifier_reads_and_scores_keep_their_bytes(
    data, tmp_path, case
):
    head, path, masking = CASES[case]
    for out, features in (("with", None), ("without", False)):
        made = scorer(head, path, masking=masking)
        table = lc.score(made, Memory(*data), tmp_path / out, shard_rows=12, features=features)
        assert table.has_features == (features is None)
    assert parts(tmp_path / "with") == parts(tmp_path / "without")
    features = lc.ScoreTable.read(tmp_path / "with").features()
    assert features.dtype == np.float16
    np.testing.assert_allclose(np.asarray(features), expected(data), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_features_take_no_further_forward(data, tmp_path, case, monkeypatch):
    head, path, masking = CASES[case]
    run, ran = OptimizedCopy._run_each, []

    def counted(self, inputs, points, forward):
        ran.append(len(points) * len(inputs))
        return run(self, inputs, points, forward)

    monkeypatch.setattr(OptimizedCopy, "_run_each", counted)
    forwards = []
    for out, features in (("with", None), ("without", False)):
        ran.clear()
        made = scorer(head, path, masking=masking)
        lc.score(made, Memory(*data), tmp_path / out, shard_rows=12, features=features)
        forwards.append(sum(ran))
    assert forwards[0] == forwards[1]


def test_exits_keep_the_features_of_the_deepest(data, tmp_path):
    exits = lc.Exits(("body.2", "body.7"))
    made = lc.Scorer(SmallNet(0).eval(), masking=exits)
    table = lc.score(made, Memory(*data), tmp_path)
    features = np.asarray(table.features())
    with torch.inference_mode():
        deepest = SmallNet(0).eval().body[:8](data[0]).numpy()
    np.testing.assert_allclose(features, deepest, rtol=2e-3, atol=1e-3)


def test_where_they_cost_a_forward_they_are_kept_only_if_asked_for(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        plain = lc.score(scorer("linear"), Memory(*data), tmp_path / "plain")
    assert not plain.has_features
    assert "--features" in caplog.text
    with pytest.raises(ValueError, match="have no features beside them"):
        plain.features()
    asked = lc.score(scorer("linear"), Memory(*data), tmp_path / "asked", features=True)
    assert parts(tmp_path / "plain") == parts(tmp_path / "asked")
    np.testing.assert_allclose(np.asarray(asked.features()), expected(data), rtol=2e-3, atol=1e-3)


def test_their_size_is_said_beforehand(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        lc.score(scorer(), Memory(*data), tmp_path, shard_rows=12)
    said = [record.getMessage() for record in caplog.records if "features:" in record.getMessage()]
    assert said == ["features: 30 rows of 16 float16, 0.0 MB beside the scores"]


def test_a_part_without_its_features_is_not_finished(data, tmp_path):
    lc.score(scorer(), Memory(*data), tmp_path / "whole", shard_rows=12)
    before = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    lost = tmp_path / "whole" / "_features-00001-of-00003.npy"
    lost.unlink()
    with pytest.raises(ValueError, match=r"_features-00001-of-00003\.npy is missing"):
        lc.ScoreTable.read(tmp_path / "whole").features()
    seen = []
    lc.score(
        scorer(),
        Memory(*data),
        tmp_path / "whole",
        shard_rows=12,
        progress=lambda phase, done, _: seen.append((phase, done)),
    )
    assert [phase for phase, _ in seen] == ["scores"]  # one part, and no class means again
    after = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert after.keys() == before.keys()
    assert parts(tmp_path / "whole") == {n: b for n, b in before.items() if n.startswith("part")}
    features = lc.ScoreTable.read(tmp_path / "whole").features()
    np.testing.assert_allclose(np.asarray(features), expected(data), rtol=2e-3, atol=1e-3)


def test_a_folder_without_features_opens_and_continues_without(data, tmp_path):
    whole = lc.score(scorer(), Memory(*data), tmp_path, shard_rows=12, features=False)
    (tmp_path / "part-00001-of-00003.parquet").unlink()
    continued = lc.score(scorer(), Memory(*data), tmp_path, shard_rows=12)
    assert continued.table.equals(whole.table)
    assert not continued.has_features
    with pytest.raises(ValueError, match="features"):
        lc.score(scorer(), Memory(*data), tmp_path, shard_rows=12, features=True)


def test_a_stopped_run_leaves_no_file_of_features_half_written(data, tmp_path):
    class StoppedError(Exception):
        pass

    def stop_at(wanted, rows):
        def stop(phase, done, _):
            if phase == wanted and done >= rows:
                raise StoppedError

        return stop

    lc.score(scorer(), Memory(*data), tmp_path / "whole", shard_rows=12, batch_size=5)
    for phase, rows in (("prototypes", 5), ("prototypes", 25), ("scores", 5), ("scores", 20)):
        with pytest.raises(StoppedError):
            lc.score(
                scorer(),
                Memory(*data),
                tmp_path / "out",
                shard_rows=12,
                batch_size=5,
                progress=stop_at(phase, rows),
            )
        assert not list((tmp_path / "out").glob("*.tmp"))
    lc.score(scorer(), Memory(*data), tmp_path / "out", shard_rows=12, batch_size=5)
    whole, out = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "out")
    )
    assert out == whole


def test_features_need_a_folder(data):
    with pytest.raises(ValueError, match="name one with out"):
        lc.score(scorer(), Memory(*data), features=True)


def test_strategies_that_read_features_take_those_of_the_scores(data, tmp_path):
    table = lc.score(scorer(), Memory(*data), tmp_path, shard_rows=12)
    own = lc.select(table, 8, "herding", features=np.asarray(table.features(), np.float32))
    assert lc.select(table, 8, "herding").tolist() == own.tolist()
    assert lc.select(tmp_path, 8, "herding").tolist() == own.tolist()


def test_a_folder_that_an_earlier_version_began_keeps_its_names(data, tmp_path):
    lc.score(scorer(), Memory(*data), tmp_path, shard_rows=12)
    for name in ("manifest.json", "prototypes.npz"):
        (tmp_path / f"_{name}").rename(tmp_path / name)
    (tmp_path / "part-00001-of-00003.parquet").unlink()
    before = {path.name for path in tmp_path.iterdir()}
    seen = []
    lc.score(
        scorer(),
        Memory(*data),
        tmp_path,
        shard_rows=12,
        progress=lambda phase, done, rows: seen.append(phase),
    )
    assert set(seen) == {"scores"}
    after = {path.name for path in tmp_path.iterdir()}
    assert after == before | {"part-00001-of-00003.parquet"}


def test_the_table_of_a_relative_out_is_read_in_another_working_directory(
    data, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    table = lc.score(scorer(), Memory(*data), "out", shard_rows=12)
    again = lc.score(scorer(), Memory(*data), "out/../again", shard_rows=12)
    monkeypatch.chdir("elsewhere")
    want = lc.ScoreTable.read(tmp_path / "out")
    for one in (table, again):
        assert one.has_features
        np.testing.assert_array_equal(one.features()[:], want.features()[:])
        np.testing.assert_array_equal(one.column("loss"), want.column("loss"))
        assert one.status_counts() == {"ok": ROWS}
        assert one.table.equals(want.table)
