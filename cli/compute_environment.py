"""Settings that the compute library reads when it is loaded."""

from __future__ import annotations

import os

# Some 20 microseconds: longer than the gaps within a step, shorter than a time slice.
_SPIN_COUNT = "1000"


def compute_environment() -> dict[str, str]:
    """What to set before torch is imported; what the user set stays.

    By default OpenMP threads spin for about a millisecond while they wait. On cores that others use too
    (coordinator, client, other stage servers) that stops whoever has work, and steps take many times longer.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        return {}
    return {"GOMP_SPINCOUNT": _SPIN_COUNT}
