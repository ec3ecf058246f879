from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from helpers.reading import assert_same, read_rows
from lc_engine._util.ordered_map import default_workers
from lc_engine.data.open import open_source


class Pairs(Dataset):
    def __init__(self, pairs, classes=None):
        self.pairs = pairs
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        value = self.pairs[index]
        if isinstance(value, Exception):
            raise value
        return value


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_rows(num_workers, batch_size):
    inputs = torch.randn(11, 2, 3)
    labels = [0, np.int64(1), torch.tensor(2), 3, 4, 5, 6, 7, 8, 9, 10]
    source = open_source(Pairs(list(zip(inputs, labels, strict=True))), num_workers=num_workers)
    want = [(i, inputs[i].numpy(), i, "ok", "") for i in range(11)]
    assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, batch_size, 4, 9), want[4:9])


def test_a_row_that_raises_or_does_not_fit_gets_a_status():
    good = torch.zeros(3)
    pairs = [
        RuntimeError("disk\non fire"),
        (good, 0),
        (good, 2),
        (good, -1),
        (good, "cat"),
        (good, 1.5),
        (torch.zeros(4), 1),
        (good.double(), 1),
        (torch.tensor([0, float("nan"), 0]), 1),
        (good.numpy(), 1),
    ]
    rows = read_rows(open_source(Pairs(pairs, classes=["a", "b"])), 4)
    assert [row[3] for row in rows] == [
        "unreadable",
        "ok",
        "bad_label",
        "bad_label",
        "bad_label",
        "bad_label",
        "unreadable",
        "unreadable",
        "non_finite",
        "ok",
    ]
    assert rows[0][4] == "RuntimeError: disk on fire"
    assert rows[2][4] == "the label is 2, but there are 2 classes"
    assert [row[2] for row in rows] == [-1, 0, -1, -1, -1, -1, 1, 1, 1, 1]


def test_images_go_through_the_transform_and_tensors_do_not():
    image = Image.new("RGB", (2, 2), (255, 0, 0))
    source = open_source(
        Pairs([(image, 0), (torch.full((3, 2, 2), 7.0), 0)]),
        transform=lambda p: torch.full((3, 2, 2), float(p.getpixel((0, 0))[0])),
    )
    assert [float(row[1].mean()) for row in read_rows(source, 2)] == [255.0, 7.0]


@pytest.mark.parametrize("item", [{"image": 1, "label": 2}, torch.zeros(2), (1, 2, 3)])
def test_items_that_are_no_pairs_stop_the_run(item):
    with pytest.raises(ValueError, match="must be an \\(input, label\\) pair"):
        list(open_source(Pairs([item])).batches(2))


def test_memory_running_out_is_not_a_row_s_fault():
    with pytest.raises(MemoryError):
        list(open_source(Pairs([(torch.zeros(1), 0), MemoryError()])).batches(2))


def test_digest():
    rows = [(torch.randn(3), i) for i in range(9)]
    digest = open_source(Pairs(rows)).digest()
    assert open_source(Pairs(list(rows))).digest() == digest
    assert open_source(Pairs(rows[:8])).digest() != digest
    assert open_source(Pairs([(rows[0][0] + 1, 0), *rows[1:]])).digest() != digest
    assert len(open_source(Pairs([])).digest()) == 64


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torchvision, with an older NumPy
def test_several_threads_only_where_they_are_safe():
    import torchvision

    own = Pairs([(torch.zeros(1), 0)])
    assert open_source(own).num_workers == 1
    assert open_source(own, num_workers=3).num_workers == 3
    fake = torchvision.datasets.FakeData(size=4, image_size=(3, 4, 4))
    source = open_source(fake, transform=torchvision.transforms.ToTensor())
    assert source.num_workers == default_workers()
    assert [row[3] for row in read_rows(source, 3)] == ["ok"] * 4
