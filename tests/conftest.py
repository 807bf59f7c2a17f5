"""Settings of the whole suite."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from cli.compute_environment import compute_environment

# Before any test imports torch: stage servers and tests share the cores.
os.environ.update(compute_environment())

# Also of the processes that tests start: a simulator that a developer compiled is not what is tested.
os.environ["ELASTICMM_COMPILED"] = "0"

# A shell's background job may be born with SIGINT ignored, which processes of tests would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about what else the machine does than about the code. What passed once
# passes again: examples are the same in every run. HYPOTHESIS_PROFILE=explore looks at new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Of `pytest -n`; without it none is asked for."""
    from tests.workers import ByFile

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.workers import longest_first

        longest_first(items)
