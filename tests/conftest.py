from __future__ import annotations

import torch

from helpers.realdata import images, lite0, models, resnet18

__all__ = ["images", "lite0", "models", "resnet18"]

# Two cores are shared with other processes: more threads than that only wait for each other.
torch.set_num_threads(min(2, torch.get_num_threads()))
