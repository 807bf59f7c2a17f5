"""Decisions as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from coordinator.policy.decisions import Decision


def decisions_json(decisions: Iterable[Decision], now_s: float) -> list[dict[str, Any]]:
    return [
        {
            "s_ago": now_s - each.at_s,
            "piece": each.piece,
            "subject": each.subject,
            "choice": each.choice,
            "arm": each.arm.value if each.arm else "",
            "numbers": {name: _finite(value) for name, value in each.numbers.items()},
        }
        for each in decisions
    ]


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
