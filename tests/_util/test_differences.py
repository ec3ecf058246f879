from __future__ import annotations

import numpy as np

from lc_engine._util.differences import differences


def test_last_bits_of_a_number_are_no_other_run():
    weight = 0.17392742256872679
    run = {"path": {"weights": [weight, 0.5]}, "rows": 3, "step": None}
    other = {"path": {"weights": (float(np.nextafter(weight, 1)), 0.5)}, "rows": 3, "step": None}
    assert differences(run, other) == ""
    other["path"]["weights"] = [weight * (1 + 1e-9), 0.5]
    assert "path.weights[0]: 0.173927422568" in differences(run, other)
    assert differences({"rows": 3}, {"rows": 4}) == "rows: 3 -> 4"
    assert differences({"step": 0.5}, {}) == "step: 0.5 -> (absent)"
