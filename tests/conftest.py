"""Settings of the whole suite."""

from __future__ import annotations

import os

from cli.compute_environment import compute_environment

# Before any test imports torch: stage servers and tests share the cores.
os.environ.update(compute_environment())
