"""The table of request states: every state is reachable, final states are final, other moves raise."""

from __future__ import annotations

import pytest

from core.lifecycle import LEGAL_MOVES, IllegalMove, RequestState, is_final, move


def test_every_state_has_a_row_and_is_reached_from_queued() -> None:
    assert set(LEGAL_MOVES) == set(RequestState)
    reached, frontier = set(), {RequestState.QUEUED}
    while frontier:
        reached |= frontier
        frontier = {to for state in frontier for to in LEGAL_MOVES[state]} - reached
    assert reached == set(RequestState)


def test_every_state_that_is_not_final_can_fail_and_be_cancelled() -> None:
    for state in RequestState:
        if not is_final(state):
            assert {RequestState.FAILED, RequestState.CANCELLED} <= LEGAL_MOVES[state]


@pytest.mark.parametrize("present", list(RequestState))
@pytest.mark.parametrize("wanted", list(RequestState))
def test_moves_follow_the_table(present: RequestState, wanted: RequestState) -> None:
    if wanted in LEGAL_MOVES[present]:
        assert move(present, wanted) is wanted
    else:
        with pytest.raises(IllegalMove, match=present.name):
            move(present, wanted)
