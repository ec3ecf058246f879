"""What precedes the first masked weight runs once for all sub-models."""

from __future__ import annotations

import torch
from torch import nn

from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO, Tap
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared
from lc_engine.submodels import Submodels

PATH = LearningPath.explicit([1.0, 0.8, 0.5])


class Counting(nn.Module):
    """A stem, a block that writes into what it is given, and a head; counts their runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.block = nn.Conv2d(4, 5, 3)
        self.fc = nn.Linear(5, 2)
        self.runs: list[str] = []
        self.stem.register_forward_hook(self._count)

    def _count(self, *_):
        self.runs.append("stem")

    def forward(self, x):
        y = self.stem(x)
        y += 1  # into the stem's own output
        return self.fc(torch.relu(self.block(y)).mean((2, 3)))


def test_what_precedes_the_first_masked_weight_runs_once():
    torch.manual_seed(0)
    model, x = Counting().eval(), torch.randn(40, 3, 8, 8)
    masking = Masking(weights=lambda name, module: name == "block")
    tap, want = Tap(model), []
    with torch.inference_mode(), Submodels(model, PATH, masking) as submodels:
        for k in range(3):
            submodels.at(k)
            want.append(tap.features(x))
    want = torch.stack(want)
    prepared = Prepared(model, AUTO, masking, PATH)
    with torch.inference_mode():
        views = prepared.views(x, torch.float32)
        views.features(x, range(3))
        runs = views.tap.model.runs
        runs.clear()
        found = views.features(x, range(3))
        assert runs.count("stem") == 3  # its hook runs for each sub-model, its inside does not
        stem = views.tap.model.stem
        inside = []
        stem[0].register_forward_hook(lambda *_: inside.append(1))
        again = views.features(x, range(3))
        assert len(inside) == 1
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, want, rtol=1e-5, atol=1e-5)
