from __future__ import annotations

import pytest
import torch

from lc_engine.models.scaled import FLOAT8, dequantized, is_scaled

FLOAT8_NAMES = sorted(FLOAT8, key=str)


def quantized(weight, scale, dtype):
    """The nearest numbers of a dtype, in units of a scale that broadcasts."""
    largest = 127 if dtype == torch.int8 else torch.finfo(dtype).max
    units = (weight / scale).clamp(-largest, largest)
    return (units.round() if dtype == torch.int8 else units).to(dtype)


@pytest.mark.parametrize("suffix", ["_scale_inv", "_scale"])
@pytest.mark.parametrize("dtype", [*FLOAT8_NAMES, torch.int8])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (6, 1)])
def test_a_weight_is_its_stored_number_times_its_scale(suffix, dtype, shape):
    scale = torch.rand(shape) * 0.1 + 0.01
    stored = quantized(torch.randn(6, 10), scale.reshape(-1, 1), dtype)
    state = {"fc.weight": stored, f"fc.weight{suffix}": scale, "fc.bias": torch.ones(6)}
    assert is_scaled(state)
    found = dequantized(state, torch.float32, None, "file")
    assert list(found) == ["fc.weight", "fc.bias"]
    for row in range(6):
        own = float(scale.reshape(-1)[row if scale.numel() > 1 else 0])
        for column in range(10):
            want = torch.tensor(float(stored[row, column].float())) * torch.tensor(own)
            assert found["fc.weight"][row, column] == want


@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (6, 9), (5, 3)])
@pytest.mark.parametrize("exponents", [False, True])
def test_blocks_are_those_of_the_configuration_where_the_last_one_is_cut_off(
    rows, columns, exponents
):
    # A grid of 2 × 3 scales over 6 × 9 weights is blocks of 4 × 4 as well as of 3 × 3.
    grid = (-(-rows // 4), -(-columns // 4))
    powers = torch.randint(110, 140, grid, dtype=torch.uint8)
    scale = powers if exponents else torch.rand(grid)
    stored = torch.randn(2, rows, columns).to(torch.float8_e4m3fn)
    state = {"w": stored, "w_scale_inv": scale.expand(2, *grid)}
    found = dequantized(state, torch.float64, (4, 4), "file")["w"]
    for e in range(2):
        for i in range(rows):
            for j in range(columns):
                s = scale[i // 4, j // 4]
                factor = 2.0 ** (int(s) - 127) if exponents else float(s)
                assert found[e, i, j] == torch.tensor(float(stored[e, i, j].float())) * factor


def test_a_weight_without_a_scale_is_its_stored_number():
    stored = torch.randn(3, 4).to(torch.float8_e5m2)
    found = dequantized({"w": stored}, torch.bfloat16, None, "file")["w"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.float(), stored.float())


def test_the_scales_of_activations_are_left_out():
    state = {
        "q.weight": torch.ones(2, 2).to(torch.float8_e4m3fn),
        "q.weight_scale": torch.tensor(2.0),
        "q.input_scale": torch.tensor(3.0),
        "k_scale": torch.tensor(3.0),
        "norm.weight": torch.ones(2),
    }
    assert list(dequantized(state, torch.float32, None, "f")) == ["q.weight", "norm.weight"]


@pytest.mark.parametrize(
    ("more", "blocks", "message"),
    [
        ({"w_scale": torch.ones(2, 2)}, None, r"scales of w \(8, 8\) .* \(2, 2\), and no block"),
        ({"w_scale": torch.ones(3, 2)}, (4, 4), r"which blocks of \(4, 4\) do not explain"),
        ({"b": torch.ones(2, 2, dtype=torch.uint8)}, None, "file: b is uint8 without a scale"),
        (
            {"w_scale": torch.ones(1), "w_zero_point": torch.ones(1)},
            None,
            "w_zero_point is not zero",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(more, blocks, message):
    state = {"w": torch.ones(8, 8).to(torch.float8_e4m3fn), **more}
    with pytest.raises(ValueError, match=message):
        dequantized(state, torch.float32, blocks, "file")


def test_plain_weights_are_not_scaled():
    plain = {"a": torch.ones(2, dtype=torch.bfloat16), "mask": torch.ones(2, dtype=torch.int8)}
    assert not is_scaled(plain)
