from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.score_tables import METADATA, random_table
from lc_engine.data.table import ScoreTable


@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("sub_models", [0, 3])
def test_round_trip(tmp_path, strings, sub_models):
    table = random_table(3, 20, sub_models, strings)
    table.write(tmp_path / "x.parquet")
    back = ScoreTable.read(tmp_path / "x.parquet")
    assert len(back) == len(table) == 20
    assert back.metadata == table.metadata
    assert back.metadata["direction"] == {"lc": "high = easy", "loss": "high = hard"}
    assert back.metadata["version"] == 1
    for key, value in METADATA.items():
        assert back.metadata[key] == value
    for name in table.table.column_names:
        np.testing.assert_array_equal(back.column(name), table.column(name))
    assert back.column("id")[3] == ("a/é3.png" if strings else 3)


def test_types_and_rows_without_scores():
    table = random_table(1, 9, 4)
    kinds = {field.name: str(field.type) for field in table.table.schema}
    assert kinds["id"] == "int64"
    assert kinds["lc"] == kinds["loss"] == kinds["lc_std"] == "float"
    assert kinds["path_log_probs"].startswith("list<")
    bad = table.column("status") != "ok"
    assert bad.sum() == 2
    for name in ("lc", "loss", "lc_std", "path_log_probs"):
        assert table.table.column(name).null_count == 2
        values = table.column(name)
        assert values.dtype == np.float32
        assert np.isnan(values[bad]).all()
        assert np.isfinite(values[~bad]).all()
    assert table.column("path_log_probs").shape == (9, 4)
    expected = np.random.default_rng(1)
    expected.integers(0, 5, 9)
    lc = expected.random(9, dtype=np.float32)
    np.testing.assert_array_equal(table.column("lc")[~bad], lc[~bad])
    assert table.status_counts() == {"ok": 7, "unreadable": 2}


def test_no_rows_and_no_good_rows():
    assert random_table(0, 0).status_counts() == {"ok": 0}
    assert random_table(0, 0).column("path_log_probs").shape[0] == 0
    table = random_table(0, 1)
    bad = ScoreTable(table.table.slice(0, 0))
    assert len(bad) == 0


def test_the_same_rows_give_the_same_bytes(tmp_path):
    random_table(5).write(tmp_path / "a.parquet")
    random_table(5).write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    assert column.compression == "ZSTD"


def test_concat_keeps_the_order():
    whole = ScoreTable.concat([random_table(1, 5), random_table(2, 8), random_table(3, 2)])
    assert len(whole) == 15
    want = np.concatenate([random_table(s, n).column("loss") for s, n in ((1, 5), (2, 8), (3, 2))])
    np.testing.assert_array_equal(whole.column("loss"), want)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_digest": "m2"}, "model_digest: 'm1' -> 'm2'"),
        (
            {"masking": {"kind": "magnitude", "scope": "layer"}},
            "masking.scope: 'global' -> 'layer'",
        ),
        (
            {"path": {"name": "gauss", "capacities": [1.0, 0.4]}},
            r"path.capacities\[1\]: 0.5 -> 0.4",
        ),
        ({"extra": 1}, r"extra: \(absent\) -> 1"),
    ],
)
def test_concat_refuses_other_runs_and_names_the_difference(changed, message):
    with pytest.raises(ValueError, match=message):
        ScoreTable.concat([random_table(), random_table(), random_table(**changed)])


def test_concat_refuses_other_columns():
    with pytest.raises(ValueError, match="different columns"):
        ScoreTable.concat([random_table(), random_table(sub_models=0)])
    with pytest.raises(ValueError, match="at least one"):
        ScoreTable.concat([])


def test_what_is_no_score_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ScoreTable.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no scores"):
        ScoreTable.read(tmp_path)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [1], "score": [0.5]}), path)
    with pytest.raises(ValueError, match=r"x\.parquet.*column detail, label.*it has id, score"):
        ScoreTable.read(path)
    pq.write_table(random_table().table.replace_schema_metadata(None), path)
    with pytest.raises(ValueError, match="no lc_engine metadata"):
        ScoreTable.read(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read"):
        ScoreTable.read(path)
    later = random_table().table.replace_schema_metadata({b"lc_engine": b'{"version": 99}'})
    with pytest.raises(ValueError, match=r"has version 99, .* reads version 1: .* --upgrade"):
        ScoreTable(later)
    with pytest.raises(ValueError, match="no column 'score'; it has id, label"):
        random_table().column("score")


def test_a_folder_with_parts_missing_is_not_finished(tmp_path):
    for index in (0, 2):
        random_table(index).write(tmp_path / f"part-{index:05d}-of-00003.parquet")
    with pytest.raises(ValueError, match="2 of 3 parts"):
        ScoreTable.read(tmp_path)
    random_table(1).write(tmp_path / "part-00001-of-00003.parquet")
    assert len(ScoreTable.read(tmp_path)) == 60


@pytest.mark.parametrize("strings", [False, True])
def test_a_data_frame_has_every_column_and_the_metadata(strings):
    table = random_table(3, 20, 3, strings)
    frame = table.to_pandas()
    assert list(frame.columns) == [*table.column_names, "rank"]
    np.testing.assert_array_equal(frame["rank"], table.ranks())
    assert frame.attrs == table.metadata
    for name in set(table.column_names) - {"path_log_probs"}:
        np.testing.assert_array_equal(frame[name].to_numpy(), table.column(name))
    bad = table.column("status") != "ok"
    assert frame["path_log_probs"].isna().to_numpy().tolist() == bad.tolist()
    paths = np.stack(frame["path_log_probs"][~bad])
    np.testing.assert_array_equal(paths, table.column("path_log_probs")[~bad])


def test_a_table_says_where_lc_is_that_of_a_guess():
    def table(lc):
        count = len(lc)
        return ScoreTable.from_arrays(
            ids=np.arange(count),
            labels=np.arange(count) % 10,
            lc=lc,
            loss=-np.log(lc),
            lc_std=lc,
            status=["ok"] * (count - 1) + ["unreadable"],
            detail=[""] * count,
            metadata=METADATA,
        )

    near = np.linspace(0.0989, 0.1008, 40)
    note = table(near).lc_note()
    assert note.startswith("lc is within 0.0011 of 1/10, a guess among 10 classes, in every row")
    for row in (0, 20):
        near[row] += 0.02
        assert table(near).lc_note() is None
        near[row] -= 0.02
    near[-1] = 0.9  # which has no score
    assert table(near).lc_note() == note
