"""A quadratic whose stability limit is known, for the tests of tuning."""

from __future__ import annotations

import math

WORKERS, CURVATURE = 4, 2.0
# Constant delay n - 1 on a quadratic: stable iff eta lambda < 2 sin(pi / (2 (2 (n - 1) + 1))).
LIMIT = 2.0 * math.sin(math.pi / (2 * (2 * (WORKERS - 1) + 1))) / CURVATURE
CONFIG = {
    "seed": 3,
    "task": {"function": "quadratic", "batch_size": 1,
             "options": {"dimension": 3, "sigma2": 0.0, "min_eigenvalue": CURVATURE, "max_eigenvalue": CURVATURE}},
    "method": {"step_size": 0.1, "rule": "constant"},
    "cluster": {"num_workers": WORKERS, "speeds": {"profile": "equal", "seconds": 1.0}},
    "budget": {"versions": 400},
}  # fmt: skip
NOISY = ["task.options={dimension = 3, sigma2 = 0.5}", "budget.versions=60"]
