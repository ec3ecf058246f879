"""What keeping the features of a run costs, in processor time of a scoring run with and without.

python -m benchmarks.features_cost FOLDER [--rows 300] [--pairs 3]
FOLDER is an image folder, of which the first rows are read; weights are fetched by pip.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

import lc_engine as lc


def main() -> None:
    """Score in turns, whole model alone, and print the ratio of each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole = lc.LearningPath.explicit([1.0])
    scorer = lc.Scorer("efficientnet-lite0", image_size=96, path=whole)
    with tempfile.TemporaryDirectory() as temporary:
        root, out = Path(temporary) / "data", Path(temporary) / "scores"
        files = (path for path in sorted(given.folder.rglob("*")) if path.is_file())
        for path in itertools.islice(files, given.rows):
            copy = root / path.relative_to(given.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)

        def seconds(features: bool) -> float:
            shutil.rmtree(out, ignore_errors=True)
            began = time.process_time()
            lc.score(scorer, root, out, features=features, progress=False)
            return time.process_time() - began

        seconds(True)  # loads the model and what it needs
        ratios = []
        for turn in range(given.pairs):
            found = {features: seconds(features) for features in (turn % 2 == 0, turn % 2 == 1)}
            ratios.append(found[True] / found[False])
            print(f"with {found[True]:.2f} s, without {found[False]:.2f} s: {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
