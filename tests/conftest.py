"""Settings of the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

from cli.compute_environment import compute_environment

# Before any test imports torch: stage servers and tests share the cores.
os.environ.update(compute_environment())

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
