"""The files of the released code, with the steps of its readers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc
from lc_engine.integrations.released import read_released, write_released


def test_the_files_are_those_that_finetune_reads(digit_scores, tmp_path):
    write_released(digit_scores, tmp_path, gamma=0.5, seed=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"0.{i}.npy" for i in range(1, 10)), "ls.npy", "lss.npy"]
    for ratio in (10.0, 30.0, 70.0):  # as finetune.py names the file of --ratio 10
        kept = np.load(tmp_path / f"{ratio / 100}.npy").astype(int)
        want = lc.select(digit_scores, ratio / 100, gamma=0.5, seed=3)
        np.testing.assert_array_equal(kept, want)
    ls, lss = np.load(tmp_path / "ls.npy"), np.load(tmp_path / "lss.npy")
    assert lss.shape == (6, 1797)
    np.testing.assert_allclose(np.average(lss, axis=0), ls, rtol=1e-5)


def test_the_files_can_be_read_back(digit_scores, tmp_path):
    write_released(digit_scores, tmp_path, gamma=0.5)
    columns = read_released(tmp_path, digit_scores.column("label"))
    np.testing.assert_allclose(columns["lc"], digit_scores.column("lc"), atol=1e-6)
    np.testing.assert_array_equal(
        lc.select(columns, 0.2, gamma=0.3), lc.select(digit_scores, 0.2, gamma=0.3)
    )
    with pytest.raises(ValueError, match=r"ls.npy has shape \(1797,\)"):
        read_released(tmp_path, digit_scores.column("label")[:5])
    np.save(tmp_path / "lss.npy", np.empty((0, 1797)))
    with pytest.raises(ValueError, match=r"lss.npy \(0, 1797\)"):
        read_released(tmp_path, digit_scores.column("label"))
    (tmp_path / "lss.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"lss\.npy cannot be read"):
        read_released(tmp_path, digit_scores.column("label"))


def test_the_files_need_the_path(incomplete_scores, tmp_path):
    with pytest.raises(ValueError, match="1 rows have no score"):
        write_released(incomplete_scores, tmp_path)
    path, masking = lc.LearningPath.explicit([1.0, 0.5]), lc.Masking(weights="head")
    scorer = lc.Scorer(torch.nn.Linear(3, 2), head="linear", path=path, masking=masking)
    plain = lc.score(scorer, (torch.ones(4, 3), torch.tensor([0, 1, 0, 1])))
    with pytest.raises(ValueError, match="return_path=True"):
        write_released(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()
