"""Decisions, kept for `elasticmm why` and written into the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from coordinator.policy.decisions import DISPATCHES, Decision, DecisionRing

log = logging.getLogger(__name__)


class LoggedRing(DecisionRing):
    """What instances play is logged at INFO; where requests go, once per request at least, at DEBUG."""

    def add(self, decision: Decision) -> None:
        super().add(decision)
        is_of_request = decision.piece in DISPATCHES
        level = logging.DEBUG if is_of_request else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", decision, extra=_facts(decision, is_of_request=is_of_request))

    def add_later(self, piece: str, tell: Callable[[], Decision]) -> None:
        if log.isEnabledFor(logging.DEBUG if piece in DISPATCHES else logging.INFO):
            self.add(tell())
        else:
            super().add_later(piece, tell)


def _facts(decision: Decision, *, is_of_request: bool) -> dict[str, str]:
    if is_of_request:
        return {"request_id": decision.subject}
    return {} if decision.subject == "cluster" else {"instance_id": decision.subject}
