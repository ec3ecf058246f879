"""Copies for which the host does not wait."""

from __future__ import annotations

import pytest
import torch

from lc_engine._util.transfer import download, upload

on_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device"),
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_device)])
def test_tensors_arrive_with_their_bits_shapes_and_dtypes(device):
    given = [
        torch.arange(12.0).view(3, 4).T,
        torch.tensor([], dtype=torch.int64),
        torch.tensor([torch.nan, torch.inf, -0.0], dtype=torch.bfloat16),
        torch.arange(5)[::2],
    ]
    there = [upload(tensor, torch.device(device)) for tensor in given]
    assert {tensor.device.type for tensor in there} == {device}
    coming = download(there)
    for tensor in there:
        tensor.zero_() if device == "cuda" else None  # after the copy, in the order of the stream
    for wanted, got in zip(given, coming(), strict=True):
        assert got.device.type == "cpu"
        assert got.dtype == wanted.dtype
        assert torch.equal(got.nan_to_num(7.0), wanted.nan_to_num(7.0))
