"""Pure decisions: view records and time in, decision records out; no I/O, no asyncio, no wall clock."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.policy.fcfs import FcfsPolicy
from coordinator.policy.view import Policy

# One line selects a policy by name; each is built from the prefill token budget.
POLICIES: dict[str, Callable[[int], Policy]] = {
    "fcfs": FcfsPolicy,
}
