from __future__ import annotations

import pytest
import torch

from lc_engine.models.device import resolve_device


@pytest.mark.parametrize(("there", "resolved"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_any(monkeypatch, there, resolved):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device("auto") == torch.device(resolved)
    assert resolve_device(None) == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


def test_a_device_of_no_kind():
    with pytest.raises(RuntimeError, match="warp"):
        resolve_device("warp")
