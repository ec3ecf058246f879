"""Scores in FiftyOne's database, of real digits imported from the scored folder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
import torch

import lc_engine as lc
from lc_engine.data.open import open_source
from lc_engine.demo import digits
from lc_engine.integrations.fiftyone import add_scores, kept

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def fo(tmp_path_factory):
    """FiftyOne with a database of its own, whose folder it reads on import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path_factory.mktemp("database")))
        patch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
        yield pytest.importorskip(
            "fiftyone", reason="FiftyOne is not installed: make test-integrations"
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six images of each digit, by folder, one of which is unreadable."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write_folders(folder, 6, 0, seed=0)
    min((folder / "train" / "4").iterdir()).write_bytes(b"no image")
    return folder / "train"


@pytest.fixture(scope="module")
def scores(root):
    """By a random projection of 8 × 8 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU())
    scorer = lc.Scorer(model, path=lc.LearningPath.gauss(2), classifier=None)
    return lc.score(scorer, open_source(root, transform=pixels))


def pixels(image):
    return torch.from_numpy(np.asarray(image.convert("L").resize((8, 8)), np.float32) / 255)


@pytest.fixture
def dataset(fo, root):
    kind = fo.types.ImageClassificationDirectoryTree
    imported = fo.Dataset.from_dir(str(root), dataset_type=kind)
    yield imported.shuffle(seed=1).clone()
    fo.delete_non_persistent_datasets()


def test_the_scored_folder_is_a_field_and_a_view(dataset, root, scores):
    hardest = add_scores(dataset, scores, root=root)
    by_path = dict(zip(scores.column("id").tolist(), scores.column("lc").tolist(), strict=True))
    bad = scores.column("status") != "ok"
    assert bad.sum() == 1
    for sample in dataset:
        path = sample.filepath.removeprefix(f"{root}/")
        if sample.lc_status == "ok":
            assert sample.lc == by_path[path]
        else:
            assert path == scores.column("id")[bad][0]
            assert sample.lc is None
    order = np.argsort(scores.column("lc")[~bad], kind="stable")
    want = scores.column("lc")[~bad][order]
    np.testing.assert_array_equal(hardest.values("lc"), want)
    np.testing.assert_allclose(dataset.sum("loss"), np.nansum(scores.column("loss")), rtol=1e-5)

    keep = lc.select(scores, 20, gamma=0.5)
    view = kept(dataset, keep, root=root)
    found = sorted(path.removeprefix(f"{root}/") for path in view.values("filepath"))
    assert found == sorted(keep.tolist())


def test_indices_and_sample_ids_name_samples_too(dataset, scores):
    ids = dataset.values("id")
    rows = np.array([5, 3, 8])
    for named in (rows, [ids[row] for row in rows]):
        table = scores.table.slice(0, 3).set_column(0, "id", pa.array(named))
        add_scores(dataset, lc.ScoreTable(table))
        want = dict(zip(rows.tolist(), scores.column("lc")[:3].tolist(), strict=True))
        assert {i: v for i, v in enumerate(dataset.values("lc")) if v is not None} == want
        dataset.delete_sample_fields(["lc", "loss", "lc_std", "lc_status"])
    assert set(kept(dataset, rows).values("id")) == {ids[3], ids[5], ids[8]}


def test_a_second_part_keeps_the_scores_of_the_first(dataset, root, scores):
    ids = scores.column("id")
    add_scores(dataset[:30], scores.only(in_view(dataset[:30], root)), root=root)
    first = dataset.count("lc_status")
    add_scores(dataset[30:], scores.only(in_view(dataset[30:], root)), root=root)
    assert (first, dataset.count("lc_status")) == (30, len(ids))


def in_view(view, root):
    return np.array([path.removeprefix(f"{root}/") for path in view.values("filepath")])


def test_ids_of_other_samples_are_refused(dataset, root, scores):
    with pytest.raises(ValueError, match="60 of 60 ids match no sample, the first '0/"):
        add_scores(dataset, scores)
    with pytest.raises(ValueError, match="paths relative to root"):
        add_scores(dataset, scores, root=root / "0")
    with pytest.raises(ValueError, match="the first 60: they must be indices"):
        kept(dataset, [1, 60])
    assert not dataset.has_sample_field("lc")


def test_bad_rows_alone_and_no_row_at_all_make_the_fields(dataset, root, scores):
    bad = scores.only(scores.column("id")[scores.column("status") != "ok"])
    for table, marked in ((lc.ScoreTable(bad.table.slice(0, 0)), 0), (bad, 1)):
        view = add_scores(dataset, table, root=root)
        assert len(view) == 0
        assert dataset.count("lc_status") == marked
        assert dataset.count("lc") == 0
        assert len(dataset.sort_by("lc")) == len(dataset)
    view = add_scores(dataset[:60], scores, root=root)
    assert len(view) == 59
    assert set(dataset.get_field_schema()) >= {"lc", "loss", "lc_std", "lc_status"}


def test_other_columns_and_one_row_keep_the_order_of_the_table(dataset, root, scores):
    view = add_scores(dataset, scores, root=root, columns=("loss", "label"))
    assert not dataset.has_sample_field("lc")
    ok = scores.column("status") == "ok"
    order = np.argsort(scores.column("lc")[ok], kind="stable")
    np.testing.assert_array_equal(view.values("label"), scores.column("label")[ok][order])
    (first,) = add_scores(dataset, scores.only(scores.column("id")[ok][:1]), root=root)
    assert first.lc == scores.column("lc")[ok][0]


def test_another_models_scores_replace_the_first_ones(dataset, root, scores):
    add_scores(dataset, scores, root=root)
    halved = pa.compute.divide(scores.table["lc"], pa.scalar(2, pa.float32()))
    at = scores.table.column_names.index("lc")
    add_scores(dataset, lc.ScoreTable(scores.table.set_column(at, "lc", halved)), root=root)
    np.testing.assert_allclose(dataset.sum("lc"), np.nansum(scores.column("lc")) / 2, rtol=1e-5)


def test_two_samples_of_one_file_are_refused(fo, dataset, root, scores):
    dataset.add_sample(fo.Sample(filepath=dataset.first().filepath))
    with pytest.raises(ValueError, match="1 ids match several samples each, the first"):
        add_scores(dataset, scores, root=root)
