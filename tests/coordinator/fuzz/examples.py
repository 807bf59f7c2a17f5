"""How many examples each fuzz test tries: few in the ordinary suite, more for who asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

_FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))

# One coordinator serves all examples, as it would in earnest.
_ALLOWED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def examples(count: int) -> Callable[[Any], Any]:
    """FUZZ_FACTOR times as many; HYPOTHESIS_PROFILE=explore makes them new ones."""
    return settings(max_examples=count * _FACTOR, suppress_health_check=_ALLOWED)
