"""One move of a decoding request to another instance: what it is, and what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MigrationOutcome:
    """Whether a request decodes elsewhere now; `reason` says why not."""

    request_id: str
    source: str
    target: str
    has_moved: bool
    reason: str = ""
    pause_ms: float = 0.0  # how long it stood still, as the source saw it
    size_bytes: int = 0
    transport: str = ""


@dataclass(slots=True, eq=False)
class Migration:
    """A move under way. Changed by Migrations only."""

    source: str
    target: str
    new_attempt: int  # the dispatch number under which the target knows the request
    outcome: asyncio.Future[MigrationOutcome]
    has_shown: bool = False  # the target made a token: it has all, whatever the source believes
    target_loss: str = ""  # why the target cannot go on, if it cannot
