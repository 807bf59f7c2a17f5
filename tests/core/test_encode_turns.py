"""Steps and encoding share a device; neither starves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from core.encode_turns import EncodeTurns

SLICE_S = 0.02


def play(
    num_turns: int,
    *,
    step_s: float,
    slice_s: float = SLICE_S,
    is_text_ready: bool = False,
    tpot_s: float = 0.0,
) -> str:
    """Who has the device while both always have work."""
    turns, played = EncodeTurns(SLICE_S, tpot_s), ""
    for _ in range(num_turns):
        if turns.is_encode_next(lambda: is_text_ready):
            turns.note_slice(slice_s, is_last=False)
            played += "e"
        else:
            turns.note_step(step_s)
            played += "s"
    return played


def test_a_slice_between_two_decode_steps() -> None:
    assert play(6, step_s=0.01) == "eseses"


def test_as_long_as_a_long_step_took() -> None:
    assert play(9, step_s=0.08) == "eseeeesee"


def test_text_goes_first_once_a_turn() -> None:
    assert play(9, step_s=0.04, is_text_ready=True) == "seesseess"


def test_as_long_as_the_target_per_token_allows() -> None:
    assert play(12, step_s=0.04, tpot_s=0.2) == "eseeeeseeees"  # 80 ms of 120, in slices of 20


def test_for_no_more_than_three_steps() -> None:
    assert play(10, step_s=0.02, tpot_s=0.3) == "eseeeseees"


def test_a_target_that_steps_miss_anyhow_changes_nothing() -> None:
    assert play(9, step_s=0.08, tpot_s=0.03) == play(9, step_s=0.08)


def test_text_goes_first_in_a_long_turn_after_every_slice() -> None:
    assert play(9, step_s=0.02, is_text_ready=True, tpot_s=0.3) == "seseseses"


def test_a_target_may_be_told_later() -> None:
    turns = EncodeTurns(SLICE_S)
    turns.aim_for(0.1)
    turns.note_step(0.01)
    turns.note_slice(SLICE_S, is_last=False)
    assert turns.is_encode_next(lambda: False)  # for 30 ms


def test_a_turn_ends_where_nothing_is_left_to_encode() -> None:
    turns = EncodeTurns(SLICE_S)
    turns.note_step(1.0)
    turns.note_slice(0.001, is_last=True)
    assert not turns.is_encode_next(lambda: False)


@settings(deadline=None)
@given(st.floats(0.001, 0.5), st.floats(0.001, 0.02), st.booleans(), st.floats(0, 0.3))
def test_neither_starves(step_s: float, slice_s: float, is_text_ready: bool, tpot_s: float) -> None:
    played = play(2000, step_s=step_s, slice_s=slice_s, is_text_ready=is_text_ready, tpot_s=tpot_s)
    encode_s, all_steps_s = played.count("e") * slice_s, played.count("s") * step_s
    last_turn_s = max(step_s, SLICE_S, tpot_s)  # may be cut short by the end
    assert encode_s + last_turn_s >= 0.9 * all_steps_s / 2
    most_s = max(step_s, SLICE_S, tpot_s - step_s) + slice_s
    assert max(map(len, played.split("s"))) * slice_s <= most_s + slice_s
    assert "sss" not in played
