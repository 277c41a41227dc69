"""What all tests share: one thread for torch, real data where there is some, and no deadline for property tests."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

# Before anything imports torch, and for the processes that tests start: a cluster's processes share the cores, and the
# last bits of a matrix product can depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import hypothesis
import pytest

# A busy machine must not fail a property test for being slow; pytest-timeout ends what hangs.
hypothesis.settings.register_profile(
    "asgd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("asgd")


def pytest_collection_finish() -> None:
    """Take what collecting has imported (torch, matplotlib, scipy) out of every garbage collection to come."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Hold torch to one thread, if a test module has imported it; those that need none of it shall not load it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real data sets; the test is skipped if it has no CIFAR-10."""
    root = os.environ.get("ASGD_DATA")
    if not root:
        pytest.skip("ASGD_DATA is not set: no real CIFAR-10 to test with")
    if not (Path(root) / "cifar-10-batches-py" / "data_batch_1").is_file():
        pytest.skip(f"ASGD_DATA = {root} has no cifar-10-batches-py/data_batch_1: no real CIFAR-10 to test with")
    return Path(root)
