"""Decisions in the log."""

from __future__ import annotations

import logging

import pytest

from coordinator.decision_log import LoggedRing
from coordinator.policy.decisions import Decision

DISPATCH = Decision(1.0, "dispatch", "r0", "goes to prefill p0")
SWITCH = Decision(1.0, "search", "i0", "becomes text:pd")


def test_what_instances_play_is_logged_and_dispatches_are_not(caplog: pytest.LogCaptureFixture) -> None:
    ring, asked = LoggedRing(), []

    def tell() -> Decision:
        asked.append(DISPATCH)
        return DISPATCH

    with caplog.at_level(logging.INFO):
        ring.add(SWITCH)
        ring.add_later("dispatch", tell)
    assert [(each.message, each.instance_id) for each in caplog.records] == [(str(SWITCH), "i0")]
    assert not asked
    assert list(ring.about("r0")) == [DISPATCH]


def test_dispatches_are_logged_where_debug_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    ring = LoggedRing()
    with caplog.at_level(logging.DEBUG):
        ring.add_later("dispatch", lambda: DISPATCH)
    assert [(each.message, each.request_id) for each in caplog.records] == [(str(DISPATCH), "r0")]
    assert ring.latest == DISPATCH
    assert ring.counts["dispatch"] == 1
