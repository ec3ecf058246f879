"""The table of docs/checkpoints.md is that of its script."""

from __future__ import annotations

import pytest
import torch

from benchmarks.checkpoints_table import BEGIN, END, ROWS, measured
from helpers.pages import PAGES

WRITTEN = PAGES["docs/checkpoints.md"].partition(BEGIN)[2].partition(END)[0].splitlines()
# Quick ones, whose models are made by hand.
CHECKED = ("FP8 per block", "FP8 per tensor", "LoRA", "MXFP4", "`Conv1D`", "standardized")


def start(row):
    return f"| {row.form} | {row.model} |"


def test_the_page_has_a_row_of_every_format():
    rows = [line for line in WRITTEN if line.startswith("| ")][1:]
    assert [line.split(" | ")[:2] for line in rows] == [
        start(row).removesuffix(" |").split(" | ") for row in ROWS
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("row", [row for row in ROWS if row.form in CHECKED], ids=start)
def test_a_row_is_as_it_was_written(row):
    if row.form == "MXFP4" and torch.__version__ < (2, 7) and not torch.cuda.is_available():
        pytest.skip("transformers loads MXFP4 without a GPU from torch 2.7 on")
    (written,) = [line for line in WRITTEN if line.startswith(start(row))]
    cells, found = (line.strip("| ").split(" | ") for line in (written, measured(row)))
    assert found[:2] == cells[:2]
    assert (found[2] == "refused") == (cells[2] == "refused")
    # Shares of random weights differ in the third digit from one library's generator to another's.
    for one, other in zip(found[3:7], cells[3:7], strict=True):
        if found[2] != "refused":
            assert float(one) == pytest.approx(float(other), abs=0.01)
