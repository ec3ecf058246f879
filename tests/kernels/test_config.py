from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lc_engine import kernels
from lc_engine.kernels import config
from lc_engine.kernels.dtypes import compute_dtype, precision
from lc_engine.kernels.targets import TARGETS, target_of
from lc_engine.kernels.tiles import Tile

ARCHS = list(TARGETS)
FOLDER = Path(kernels.__file__).parent


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_blocks_are_powers_of_two_that_a_product_can_take(arch: str, itemsize: int) -> None:
    target = TARGETS[arch]
    tiles = [config.product(target, itemsize), config.mlp(target, itemsize)]
    tiles += [config.prototype(target, itemsize, cosine) for cosine in (True, False)]
    tiles += [config.linear(target, itemsize, c, k) for c in (1, 10, 1000) for k in (1, 2, 3, 50)]
    for tile in tiles:
        for size in (tile.rows, tile.classes, tile.sub_models, tile.depth, tile.warps):
            assert size & (size - 1) == 0
        assert tile.rows >= 16
        assert tile.classes * tile.sub_models >= 16
        assert tile.depth >= 16


@pytest.mark.parametrize(
    ("classes", "sub_models", "tile"),
    [
        (1000, 50, Tile(128, 32, 8, 64, 8, 3)),
        (21841, 8, Tile(128, 32, 8, 64, 8, 3)),
        (10, 50, Tile(128, 16, 8, 64, 8, 3)),
        (16, 50, Tile(128, 16, 8, 64, 8, 3)),
        (17, 50, Tile(128, 32, 8, 64, 8, 3)),
        (1000, 2, Tile(128, 64, 2, 64, 8, 3)),
        (1000, 1, Tile(128, 64, 2, 64, 8, 3)),
        (1000, 3, Tile(128, 32, 8, 64, 8, 3)),
        (10, 2, Tile(128, 64, 2, 64, 8, 3)),
    ],
)
def test_linear_tile_on_hopper(classes: int, sub_models: int, tile: Tile) -> None:
    assert config.linear(TARGETS["sm_90"], 2, classes, sub_models) == tile


def test_loaded_or_drawn_saliencies_narrow_the_tile() -> None:
    tile = config.linear(TARGETS["sm_90"], 2, 1000, 50, scored=True)
    assert tile == Tile(128, 16, 8, 64, 8, 3)
    assert config.linear(TARGETS["gfx942"], 2, 1000, 2, scored=True).classes == 32
    plain, scored = (config.product(TARGETS["sm_90"], 2, scored=s) for s in (False, True))
    assert (plain.classes, scored.classes) == (128, 64)


def test_heads_are_premasked_while_their_copies_fit() -> None:
    small = replace(TARGETS["sm_90"], memory_bytes=16 << 30)
    assert config.premask(small, 2, 1000, 768, 50)
    assert not config.premask(small, 2, 21841, 768, 50)
    assert config.premask(replace(small, memory_bytes=80 << 30), 4, 21841, 768, 50)
    # 50 sub-models are padded to 56, a multiple of 8.
    at_the_limit = (1 << 30) // (2 * 56 * 1024)
    assert config.premask(small, 2, 1024, at_the_limit, 50)
    assert not config.premask(small, 2, 1024, at_the_limit + 1, 50)


def test_premasked_weights_take_a_deeper_tile() -> None:
    expanded, premasked = (
        config.linear(TARGETS["sm_90"], 4, 1000, 50, premasked=p) for p in (False, True)
    )
    assert (expanded.depth, premasked.depth) == (16, 32)
    assert replace(premasked, depth=16) == expanded


def test_the_vocabulary_takes_wide_tiles_without_entropy() -> None:
    plain, entropy = (
        config.vocabulary(TARGETS["sm_90"], 2, scored=False, entropy=e) for e in (False, True)
    )
    assert (plain.classes, entropy.classes) == (256, 128)


@pytest.mark.parametrize(
    ("samples", "chunks", "programs"),
    [
        (1_000_000, 50, 1),  # rows alone fill the device
        (128 * 132, 50, 1),
        (128 * 66, 50, 2),
        (256, 50, 50),  # never more programs than chunks
        (256, 7, 7),
        (1, 1, 1),
    ],
)
def test_small_batches_split_the_path(samples: int, chunks: int, programs: int) -> None:
    assert config.splits(TARGETS["sm_90"], samples, 128, chunks) == programs


@pytest.mark.parametrize(("width", "block"), [(1, 64), (64, 64), (65, 128), (200, 256)])
def test_hidden_block(width: int, block: int) -> None:
    assert config.hidden_block(width) == block


@pytest.mark.parametrize("arch", ARCHS)
def test_float32_products_keep_float32_digits(arch: str) -> None:
    exact = "ieee" if arch.startswith("gfx") else "tf32x3"
    assert precision(TARGETS[arch], torch.float32) == exact
    assert precision(TARGETS[arch], torch.bfloat16) == "ieee"


def test_operands_are_converted_to_a_dtype_that_holds_both(monkeypatch: pytest.MonkeyPatch) -> None:
    half, brain, single = (
        torch.zeros(1, dtype=d) for d in (torch.half, torch.bfloat16, torch.float)
    )
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert compute_dtype(brain, brain) == torch.bfloat16
    assert compute_dtype(brain, half) == torch.float32
    assert compute_dtype(half, single) == torch.float32
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert compute_dtype(brain, brain) == torch.float32


@pytest.mark.parametrize(
    ("major", "hip", "name", "arch"),
    [
        (8, None, "", "sm_80"),
        (9, None, "", "sm_90"),
        (10, None, "", "sm_100"),
        (12, None, "", "sm_120"),
        (13, None, "", "sm_80"),  # not known yet: tiles that every device has room for
        (9, "7.0", "gfx942:sramecc+:xnack-", "gfx942"),
        (9, "7.0", "gfx950:sramecc+:xnack-", "gfx950"),
        (9, "7.0", "gfx90a", "gfx942"),
    ],
)
def test_a_device_has_the_target_of_its_family(
    major: int, hip: str | None, name: str, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(
        name="a device", major=major, minor=0, gcnArchName=name, multi_processor_count=7,
        total_memory=1 << 30,
    )  # fmt: skip
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    target = target_of.__wrapped__(torch.device("cuda", 0))
    assert target == replace(TARGETS[arch], units=7, memory_bytes=1 << 30)


def test_a_device_before_ampere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(name="Turing", major=7, minor=5, multi_processor_count=1)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: old)
    with pytest.raises(ValueError, match='pass backend="reference"'):
        target_of.__wrapped__(torch.device("cuda", 0))


def test_every_launch_states_the_options_whose_defaults_change() -> None:
    launches = 0
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            # kernel[grid](...), and not a load of an element
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)):
                continue
            launches += 1
            given = [ast.unparse(k.value) for k in node.keywords if k.arg is None]
            assert given == ["config.OPTIONS"], f"{file.name}:{node.lineno}"
    assert launches == 8


def test_the_host_is_one_unit_of_an_h100() -> None:
    target = target_of(torch.device("cpu"))
    assert (target.arch, target.units) == ("sm_90", 1)
    assert config.splits(target, 10_000, 128, 50) == 1
