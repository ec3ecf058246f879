"""Counts of the work model against counts by hand."""

from __future__ import annotations

import pytest

from lc_engine.kernels import config, work_model
from lc_engine.kernels.floors import LAUNCHES, Launch, lines
from lc_engine.kernels.tiles import Tile
from lc_engine.kernels.work_model import DEVICES, Estimate, Work

TILE = Tile(rows=16, classes=8, sub_models=2, depth=16, warps=4, stages=2)


def test_linear_counted_by_hand() -> None:
    # 16 rows, 8 classes, 2 sub-models, 16 features: one tile without padding.
    # 256 logits x 16 x 2 FLOPs; 256 exp, and a rescaling, exp and log for each of 32 (row, k).
    # x 16·16·2, weight 8·16·2, labels and two scores 16·16 bytes.
    work = work_model.linear(16, 16, 8, 2, 2, TILE, premasked=False)
    masks = 8 * 16 * 2 * 2
    assert work == Work(8192, 256 * 8 + masks, 256 + 32 * 3, 512 + 256 + 256)
    # Pre-masked: no masks, two heads to read; the path is 16·2 float32.
    work = work_model.linear(16, 16, 8, 2, 2, TILE, premasked=True, return_path=True)
    assert work == Work(8192, 256 * 8, 352, 512 + 512 + 256 + 128)


def test_linear_pads_to_tiles() -> None:
    # 17 rows -> 32, 9 classes -> 16 (two tiles), 3 sub-models -> 4, 17 features -> 32.
    work = work_model.linear(17, 17, 9, 3, 4, TILE, premasked=False)
    logits = 32 * 16 * 4
    assert work.flops == 2 * logits * 32
    assert work.exponentials == logits + 32 * 4 * (2 + 2)
    assert work.vector_ops == 8 * logits + 2 * (16 * 32 * 4) * 2  # two blocks of rows mask
    assert work.bytes == 17 * 17 * 4 + 9 * 17 * 4 + 17 * 16


def test_random_saliency_is_drawn_once_per_block_of_sub_models() -> None:
    plain = work_model.linear(16, 16, 8, 4, 2, TILE, premasked=False)
    drawn = work_model.linear(16, 16, 8, 4, 2, TILE, premasked=False, random=True)
    assert drawn.vector_ops - plain.vector_ops == 8 * 16 * 2 * 80


def test_prototype_counted_by_hand() -> None:
    # 3 sub-models x 16 rows x 8 classes x 16 features = 6144 pairs.
    work = work_model.prototype(16, 16, 8, 3, 4, TILE, cosine=False)
    assert work == Work(0, 2 * 6144 + 8 * 384, 384 + 48 * 3 + 384, (3 * 16 + 8) * 16 * 4 + 256)
    work = work_model.prototype(16, 16, 8, 3, 4, TILE, cosine=True)
    assert (work.flops, work.vector_ops) == (12288, 8 * 384 + 3 * 256)


def test_mlp_counted_by_hand() -> None:
    # A hidden layer of 10 takes a tile of 64: 64·16 weights before it and 64·8 after it.
    work = work_model.mlp(16, 16, 10, 8, 3, 2, TILE)
    assert work.flops == 2 * 16 * 64 * (16 + 8) * 3
    assert work.vector_ops == 8 * 384 + 3 * (16 * 64 * 2 + 64 * 24 * 2)
    assert work.bytes == (16 * 16 + 10 * 16 + 10 * 8) * 2 + 256


def test_masked_linear_counted_by_hand() -> None:
    # 17 rows -> 32, 8 outputs, 16 features, 3 sub-models; each block of rows masks the weight.
    work = work_model.masked_linear(17, 16, 8, 3, 2, TILE)
    assert work.flops == 2 * 32 * 8 * 16 * 3
    assert work.vector_ops == 3 * (2 * 8 * 16 * 2 + 32 * 8)
    assert work.exponentials == 0
    assert work.bytes == (3 * 17 * (16 + 8) + 8 * 16) * 2


def test_token_nll_counted_by_hand() -> None:
    # 16 tokens, a vocabulary of 9 -> 16 in two tiles, 16 features, 2 sub-models: 512 logits.
    work = work_model.token_nll(16, 16, 9, 2, 4, TILE)
    assert work.flops == 2 * 512 * 16
    assert work.vector_ops == 8 * 512
    assert work.exponentials == 512 + 32 * (2 + 2)
    assert work.bytes == (2 * 16 + 9) * 16 * 4 + 8 * 16 + 4 * 16 * 2


def test_apply_thresholds_reads_and_writes_every_weight_once() -> None:
    assert work_model.apply_thresholds(1000, 2) == Work(0, 3000, 0, 4000)
    assert work_model.apply_thresholds(1000, 4, "given").bytes == 12_000
    assert work_model.apply_thresholds(1000, 4, "random").vector_ops == 82_000


@pytest.mark.parametrize(
    ("work", "bound", "seconds"),
    [
        (Work(989 * 10**12, 0, 0, 1), "matrix", 1.0),
        (Work(0, 335 * 10**11, 0, 1), "vector", 1.0),
        (Work(0, 0, 132 * 16 * 183 * 10**7, 1), "exponentials", 1.0),
        (Work(1, 1, 1, 335 * 10**10), "memory", 1.0),
    ],
)
def test_the_bound_is_named(work: Work, bound: str, seconds: float) -> None:
    got = work_model.estimate(work, DEVICES["H100"], 2)
    assert got.bound == bound
    assert got.seconds == pytest.approx(seconds)


def test_float32_costs_three_products_on_nvidia_and_one_on_amd() -> None:
    work = Work(10**15, 0, 0, 0)
    assert work_model.estimate(work, DEVICES["A100"], 4).seconds == pytest.approx(3e15 / 156e12)
    assert work_model.estimate(work, DEVICES["MI300X"], 4).seconds == pytest.approx(1e15 / 163e12)


@pytest.mark.parametrize("name", list(DEVICES))
def test_a_wide_head_is_bound_by_the_matrix_units(name: str) -> None:
    launch = Launch("linear_confidence", {"N": 10**6, "D": 2048, "C": 1000, "K": 50})
    got = launch.floor(DEVICES[name])
    assert isinstance(got, Estimate)
    assert got.bound == "matrix"
    # No less than the products themselves at the datasheet rate.
    assert got.seconds >= 2 * 10**6 * 2048 * 1000 * 50 / DEVICES[name].half


def test_the_model_counts_the_tiles_that_run() -> None:
    device = DEVICES["H100"]
    tile = config.linear(device.target, 2, 1000, 50)
    work = work_model.linear(4096, 768, 1000, 50, 2, tile, premasked=True)
    assert work.flops == 2 * 4096 * 1024 * 56 * 768
    launch = Launch("linear_confidence", {"N": 4096, "D": 768, "C": 1000, "K": 50})
    assert launch.floor(device) == work_model.estimate(work, device, 2)


@pytest.mark.parametrize("name", list(DEVICES))
def test_a_target_has_the_rates_of_its_family(name: str) -> None:
    assert work_model.sheet_of(DEVICES[name].target) == (name, DEVICES[name])


@pytest.mark.parametrize("launch", LAUNCHES, ids=lambda launch: launch.name)
def test_every_launch_has_a_floor_on_every_device(launch: Launch) -> None:
    for device in DEVICES.values():
        floor = launch.floor(device)
        assert floor.seconds > 0
        assert floor.bound in ("matrix", "vector", "exponentials", "memory")
        assert launch.work(device.target).bytes / device.bandwidth <= floor.seconds
    assert sum(line.startswith(launch.name) for line in lines()) == 1
