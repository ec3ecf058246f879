"""Heads that learn from images and score them in one reading; decoding and forwards at once."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine.data.open import open_source
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.estimate import _Probe

ROWS, BATCH, CLASSES, SIDE = 40, 8, 3, 6
IMAGE_BYTES = 3 * SIDE * SIDE * 4
# What is kept of a row under 2 sub-models and the whole model, 5 features each.
FEATURE_BYTES = 3 * 5 * 4


class Net(nn.Module):
    """A small network that tells `seen` of each forward."""

    seen = staticmethod(lambda x: None)

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, CLASSES)

    def forward(self, x):
        Net.seen(x)
        return self.head(self.conv(x).relu().mean((2, 3)))


class Images(torch.utils.data.Dataset):
    """Images that are made as they are read; some raise, some hold NaN."""

    def __init__(self, broken=(), rows=ROWS):
        self.read, self.broken, self.rows = [], broken, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        self.read.append(row)
        if row in self.broken:
            raise OSError("the file is cut off")
        generator = torch.Generator().manual_seed(row)
        return torch.randn(3, SIDE, SIDE, generator=generator), row % CLASSES


def scored(data, out=None, head="prototype", **options):
    settings = {name: options.pop(name) for name in ("tol", "labels") if name in options}
    path = lc.LearningPath.explicit([0.8, 0.3])
    if "tol" in settings:
        path = lc.LearningPath.clenshaw_curtis(3, 0.2, 1.0)
    scorer = lc.Scorer(Net(), head=head, path=path, **settings)
    options.setdefault("batch_size", BATCH)
    return lc.score(scorer, data, out, **options)


def assert_read_once(data, judged=5):
    """But for the rows that the shape, the cost of a row and the digest are taken from."""
    times, sampled = Counter(data.read), {*range(judged), ROWS // 2, ROWS - 1}
    assert {row: times[row] for row in range(ROWS) if row not in sampled and times[row] != 1} == {}


COLUMNS = ("id", "label", "lc", "loss", "lc_std", "status", "detail")


def assert_same(one, other):
    for name in COLUMNS:
        np.testing.assert_array_equal(one.column(name), other.column(name), err_msg=name)


@pytest.mark.parametrize("broken", [(), (3,), (0, 17, 39), tuple(range(8, 16))])
@pytest.mark.parametrize("rows_that_fit", [ROWS, 20, 0])
def test_scores_are_those_of_two_readings(monkeypatch, broken, rows_that_fit):
    data = Images(broken)
    budget = 16 * IMAGE_BYTES + rows_that_fit * FEATURE_BYTES if rows_that_fit else 0
    one = scored(data, cache_bytes=budget, return_path=True)
    monkeypatch.setattr(Scorer, "_keeper", lambda *_: None)
    two = scored(Images(broken), cache_bytes=0, return_path=True)
    assert_same(one, two)
    np.testing.assert_array_equal(one.column("path_log_probs"), two.column("path_log_probs"))
    assert one.status_counts().get("unreadable", 0) == len(broken)


def test_more_rows_are_read_once_than_images_fit():
    data = Images()
    forwards = []
    Net.seen = lambda x: forwards.append(len(x))
    try:
        scored(data, cache_bytes=ROWS * FEATURE_BYTES + 4 * BATCH * IMAGE_BYTES)
    finally:
        Net.seen = staticmethod(lambda x: None)
    assert_read_once(data)
    assert 0 < 4 * BATCH < ROWS, "all images would fit"
    whole, path = 1, 2
    assert sum(forwards) >= ROWS * (whole + path)
    assert sum(forwards) - ROWS * (whole + path) < BATCH, "some forwards ran twice"


@pytest.mark.parametrize(
    "options", [{"head": "linear"}, {"head": "knn"}, {"tol": 1e-3}, {"shard_rows": BATCH}], ids=str
)
def test_what_must_be_read_twice_or_once_stays_so(tmp_path, monkeypatch, options):
    kept = []
    monkeypatch.setattr(
        "lc_engine.data.wrap.cache.CachedSource.keep", lambda *args: kept.append(args)
    )
    scored(Images(), tmp_path / "out", **options)
    assert not kept


def test_one_part_in_a_folder_is_read_once_and_keeps_its_features(tmp_path):
    data = Images((5,))
    table = scored(data, tmp_path / "out", features=True)
    assert_read_once(data, judged=16)
    assert_same(table, scored(Images((5,))))
    features = table.features()
    assert np.isnan(np.asarray(features[5], np.float32)).all()
    again = scored(Images((5,)), tmp_path / "other", features=True, shard_rows=BATCH)
    np.testing.assert_array_equal(np.asarray(features), np.asarray(again.features()))


def test_images_in_memory_are_read_once_too():
    pairs = [Images()[row] for row in range(ROWS)]
    x, y = torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])
    source = open_source((x, y))
    read, batches = [], source.batches

    def noted(batch_size, start=0, stop=None):
        read.append((start, stop))
        return batches(batch_size, start, stop)

    source.batches = noted
    assert_same(scored(source), scored(Images()))
    assert read == [(0, ROWS)], "the second reading is from memory"


def test_a_row_that_fails_in_a_sub_model_has_its_status():
    class Fails(Net):
        def forward(self, x):
            sparse = int((self.conv.weight == 0).sum()) > 60
            if sparse and bool((x[:, 0, 0, 0] == 9.0).any()):
                raise RuntimeError("no such thing")
            return super().forward(x)

    class Marked(Images):
        def __getitem__(self, row):
            x, y = super().__getitem__(row)
            if row == 13:
                x[0, 0, 0] = 9.0
            return x, y

    path = lc.LearningPath.explicit([0.8, 0.3])
    table = lc.score(lc.Scorer(Fails(), path=path), Marked(), batch_size=BATCH)
    assert np.flatnonzero(table.column("status") == "failed").tolist() == [13]
    assert table.status_counts() == {"ok": ROWS - 1, "failed": 1}


def test_memory_that_runs_out_while_learning_costs_time_only(monkeypatch):
    whole, sizes = Scorer._whole_features, []

    def little(self, inputs):
        sizes.append(len(inputs))
        if len(inputs) > 4 and len(sizes) > 2:
            raise MemoryError
        return whole(self, inputs)

    monkeypatch.setattr(Scorer, "_whole_features", little)
    table = scored(Images())
    assert sizes[:3] == [8, 8, 8]
    assert set(sizes[3:]) == {4}
    monkeypatch.undo()
    other = scored(Images())
    for name in ("lc", "loss"):  # rows beside others, whose sums round otherwise
        np.testing.assert_allclose(table.column(name), other.column(name), rtol=1e-5)


def test_a_model_that_changes_between_learning_and_scoring_ends_the_run(monkeypatch):
    model = Net()
    scorer = lc.Scorer(model, path=lc.LearningPath.explicit([0.8, 0.3]))
    learn = Scorer._learn

    def then_changed(self, *args):
        found = learn(self, *args)
        with torch.no_grad():
            model.conv.weight.mul_(1.0)  # the same values, written again
        return found

    monkeypatch.setattr(Scorer, "_learn", then_changed)
    with pytest.raises(ValueError, match="the model was changed"):
        lc.score(scorer, Images(), batch_size=BATCH)


@pytest.mark.parametrize("images_that_fit", [BATCH, ROWS])
def test_a_model_that_changes_while_it_learns_ends_the_run(images_that_fit):
    model = Net()
    scorer = lc.Scorer(model, path=lc.LearningPath.explicit([0.8, 0.3]))

    def change(phase, done, rows):
        if (phase, done) == ("prototypes", 3 * BATCH):
            with torch.no_grad():
                model.conv.weight.mul_(1.5)

    with pytest.raises(ValueError, match="the model was changed"):
        lc.score(
            scorer,
            Images(),
            batch_size=BATCH,
            cache_bytes=images_that_fit * IMAGE_BYTES,
            progress=change,
        )


@pytest.mark.parametrize(("phase", "head"), [("prototypes", "prototype"), ("scores", "linear")])
def test_an_error_that_is_kept_does_not_keep_threads(phase, head):
    images = np.stack([Images()[row][0].numpy() for row in range(ROWS)])
    before = threading.active_count()

    def stop(now, done, rows):
        if now == phase:
            raise KeyError("the error of a caller")

    with pytest.raises(KeyError) as kept:
        lc.score(
            lc.Scorer(Net(), head=head),
            (images, np.arange(ROWS) % CLASSES),
            batch_size=BATCH,
            progress=stop,
        )
    assert threading.active_count() == before, kept


def test_an_estimate_tells_learning_from_scoring(monkeypatch):
    kept = []
    monkeypatch.setattr(
        "lc_engine.data.wrap.cache.CachedSource.keep", lambda *args: kept.append(args)
    )
    scorer = lc.Scorer(Net(), path=lc.LearningPath.explicit([0.8, 0.3]))
    _Probe(scorer, open_source(Images()), return_path=False).run(ROWS, BATCH)
    assert not kept


@pytest.mark.parametrize("head", ["linear", "prototype"])
def test_rows_are_decoded_while_the_sub_models_run(head):
    """No forward over a batch ends before the next batch is decoded, or begins to wait for it."""
    decoded = [threading.Event() for _ in range(ROWS)]
    overlapped = []

    class Slow(Images):
        def __getitem__(self, row):
            found = super().__getitem__(row)
            decoded[row].set()
            return found

    def seen(x):
        last = [row for row in range(0, ROWS, BATCH) if torch.equal(x[0], images[row])]
        if len(x) == BATCH and last and last[0] + BATCH < ROWS:
            following = range(last[0] + BATCH, last[0] + 2 * BATCH)
            overlapped.append(all(decoded[row].wait(10) for row in following))

    images = [Images()[row][0] for row in range(ROWS)]
    Net.seen = seen
    try:
        scored(Slow(), head=head, cache_bytes=1 << 20)
    finally:
        Net.seen = staticmethod(lambda x: None)
    forwards = 2 if head == "linear" else 3
    assert len(overlapped) >= forwards * (ROWS // BATCH - 1)
    assert all(overlapped)


class Recorded:
    """A scorer on a device, whose batches are begun before the scores of those before are read."""

    def __init__(self, inner, events):
        self.inner, self.events = inner, events
        self.input_device = torch.device("meta")
        self.path = inner.path

    def start_rows(self, batch, *, features=False):
        first = int(batch.ids[0])
        self.events.append(("start", first))
        rows = self.inner.score_rows(batch, features=features)

        def wait():
            self.events.append(("wait", first))
            return rows

        return wait

    def score_rows(self, batch, progress=None, *, features=False):
        raise AssertionError("the device would wait for the host")


def test_a_device_is_given_the_next_batch_before_its_scores_are_read():
    from lc_engine.scoring.run import Run

    torch.manual_seed(0)
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    inner = lc.Scorer(
        nn.Linear(4, 3), head="linear", masking=lc.Masking(weights="head"),
        path=lc.LearningPath.explicit([0.9, 0.4]),
    )  # fmt: skip
    events, told = [], []
    source = open_source((x, y))
    run = Run(Recorded(inner, events), source, {}, 6, True, lambda *now: told.append(now))
    table = run.rows(0, 20).table()
    assert events == [
        ("start", 0), ("start", 6), ("wait", 0), ("start", 12), ("wait", 6), ("start", 18),
        ("wait", 12), ("wait", 18),
    ]  # fmt: skip
    assert told == [("scores", done, 20) for done in (6, 12, 18, 20)]
    whole = lc.score(inner, (x, y), batch_size=6)
    np.testing.assert_array_equal(table.column("lc"), whole.column("lc"))


def test_a_failure_that_shows_late_ends_the_run():
    from lc_engine.scoring.run import Run

    class Broken(Recorded):
        def start_rows(self, batch, *, features=False):
            def wait():
                raise RuntimeError("an illegal memory access was encountered")

            return wait

    inner = lc.Scorer(nn.Linear(4, 3), head="linear", masking=lc.Masking(weights="head"))
    source = open_source((torch.randn(20, 4), torch.zeros(20, dtype=torch.int64)))
    with pytest.raises(RuntimeError, match="illegal memory"):
        Run(Broken(inner, []), source, {}, 6, False, None).rows(0, 20)


def test_path_features_are_inputs():
    from lc_engine.backbone.masked_weights import WHOLE
    from lc_engine.scorer.path_features import PathFeatures

    features, whole = torch.randn(2, 5, 3), torch.randn(5, 3)
    made = PathFeatures(features, whole)
    assert len(made) == 5
    assert made.nbytes == 3 * 5 * 3 * 4
    assert torch.equal(made.at([0, 1]), features)
    assert torch.equal(made.at([1, WHOLE])[1], whole)
    part = made[1:3] + made[torch.tensor([4])].to(torch.device("cpu"))
    assert len(part) == 3
    assert torch.equal(part.at([1])[0], features[1, [1, 2, 4]])
    mask = torch.tensor([True, False, False, True, False])
    assert torch.equal(made[mask].at([WHOLE])[0], whole[mask])


def test_a_single_row_that_fails_is_not_joined_with_features(monkeypatch):
    def seen(x):
        if len(x) > 1 and Net.short:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if (x[:, 0, 0, 0] > 90).any():
            raise RuntimeError("a row of this model")

    def no_longer(phase, done, rows):
        Net.short = done < rows

    monkeypatch.setattr(Net, "seen", staticmethod(seen))
    monkeypatch.setattr(Net, "short", True, raising=False)
    images = np.stack([Images()[row][0].numpy() for row in range(ROWS)])
    images[ROWS - 1, 0, 0, 0] = 99
    table = scored((images, np.arange(ROWS) % CLASSES), progress=no_longer)
    assert table.status_counts() == {"ok": ROWS - 1, "failed": 1}
