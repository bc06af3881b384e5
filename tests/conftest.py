"""What all tests share: no network, few threads, one tiny model.

The environment is set here, before any test imports a library: the hub's client reads it once, at import.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # footgun: without it a look-up offline burns most of a minute in retries
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest

MOST_THREADS = 2  # the models of the tests are so small that more threads only wait for each other


def idle_cores() -> int:
    """Cores that are free now: two OpenMP threads on one core are slower than one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0
    return max(1, int(cores - busy + 0.5))


def pytest_configure(config):
    """Limit threads before torch is imported, so that tests without torch need not import it."""
    threads = str(min(MOST_THREADS, idle_cores()))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, threads)


@pytest.fixture(scope="session")
def tiny_model():
    """A complete model with random weights; shared, so a test that changes it has to copy it first."""
    from blip3o_mini.model import Blip3oMini

    return Blip3oMini.from_preset("tiny", device="cpu", seed=0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
