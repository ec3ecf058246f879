from __future__ import annotations

import torch

from helpers.realdata import lite0, models, pictures, resnet18

__all__ = ["lite0", "models", "pictures", "resnet18"]

# Two cores are shared with other processes: more threads than that only wait for each other.
torch.set_num_threads(min(2, torch.get_num_threads()))
