"""Settings of the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

from cli.compute_environment import compute_environment

# Before any test imports torch: stage servers and tests share the cores.
os.environ.update(compute_environment())

# How long an example takes says more about what else the machine does than about the code. What passed once
# passes again: examples are the same in every run. HYPOTHESIS_PROFILE=explore looks at new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
