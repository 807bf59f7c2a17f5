"""The coordinator's reconciler on simulated instances: what moves, what ends in place, who is open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.costs import MoveCosts
from simulator.cluster import Cluster
from simulator.result import RunResult
from tests.simulator.clusters import cluster, picture, text
from tests.simulator.profiles import ROUND

DEAR = replace(ROUND, kv_move=MoveCosts(100.0, 1e9))  # no move is worth it
THERE, AWAY = {"i0": "pd", "i1": "epd"}, {"i0": "e", "i1": "epd"}
CHANGE = [(0.0, THERE), (0.5, AWAY)]


def played(*args: Any, **config: Any) -> tuple[Cluster, RunResult]:
    """To the end, with a check that nothing is left."""
    simulated, _ = cluster(*args, 2, **config)
    result = simulated.run()
    simulated.check_idle()
    return simulated, result


def spans_of(result: RunResult, name: str) -> list[tuple[str, float, float]]:
    return [(each.assignment, each.start_s, each.end_s) for each in result.spans if each.instance_id == name]


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-9)


def test_decoding_that_is_not_worth_moving_ends_in_place_after_the_switch() -> None:
    simulated, result = played([text("a", outputs=100)], CHANGE, profile=DEAR)
    (record,) = result.records
    assert (record.num_moves, record.finished_s) == (0, about(100 * 0.011))  # as undisturbed
    assert spans_of(result, "i0")[:2] == [("shared:pd", 0.0, 0.5), ("", 0.5, about(0.6))]
    assert spans_of(result, "i0")[2][:2] == ("shared:e", about(0.6))
    (past,) = simulated.transitions.reconciler.past
    assert (past.num_resident, past.clearing_s, past.took_s) == (1, 0.0, about(0.1))


def test_a_sequence_worth_moving_moves_before_the_switch() -> None:
    simulated, result = played([text("a", outputs=100)], CHANGE)
    (record,) = result.records
    (past,) = simulated.transitions.reconciler.past
    assert record.num_moves == result.num_moves == past.cleared.num_moved == 1
    # 45 tokens are out at 0.5 s, the last of them not in the KV; the source makes one more
    assert past.cleared.size_bytes == (100 + 45) * ROUND.kv_bytes_per_token
    assert past.clearing_s > 2 * ROUND.kv_move.setup_s
    assert spans_of(result, "i0")[1] == ("", about(0.5 + past.clearing_s), about(0.6 + past.clearing_s))


def test_pictures_and_prompts_of_stages_given_up_end_in_place() -> None:
    """Two seconds of encoding for an instance that encodes for the first half second only."""
    plans = [(0.0, {"i0": "epd", "i1": "d"}), (0.5, {"i0": "p", "i1": "epd"}), (1.2, {"i0": "d"})]
    workload = [picture(f"r{at}", tokens=500, text_tokens=400, outputs=20) for at in range(20)]
    wide = replace(DEAR, kv_tokens=32768, embedding_tokens=32768)
    _, result = played(workload, plans, profile=wide)
    assert spans_of(result, "i0")[-1][0] == "shared:d"
    assert spans_of(result, "i0")[-1][1] < 2.0
    assert result.usage["i0"].num_encodes == 20
    assert result.num_moves == 0


def test_an_instance_takes_nothing_new_until_it_has_switched() -> None:
    simulated, _ = cluster([text("a", outputs=100)], CHANGE, 2)
    seen: list[tuple[float, bool]] = []
    for when_s in (0.49, 0.51, 0.59, 0.62):
        simulated.events.at(
            when_s, lambda at_s: seen.append((at_s, simulated.books.instances["i0"].is_open)), when_s
        )
    simulated.run()
    assert seen == [(0.49, True), (0.51, False), (0.59, False), (0.62, True)]


def test_a_stage_is_given_up_once_another_instance_has_taken_it_over() -> None:
    plans = [(0.0, {"i0": "epd", "i1": "d"}), (0.5, {"i0": "d", "i1": "epd"})]
    _, result = played([text("a", outputs=100), text("b", 0.55)], plans, profile=DEAR)
    assert spans_of(result, "i1")[1] == ("", 0.5, about(0.6))
    assert spans_of(result, "i0")[1] == ("", about(0.6), about(0.7))
    assert {each.request_id: each.dispatched_s for each in result.records} == {"a": 0.0, "b": 0.55}


def test_a_switch_past_the_deadline_is_taken_back() -> None:
    plans = [*CHANGE, (1.0, THERE)]
    simulated, result = played([text("a"), text("b", 80.0)], plans, switch_s=40.0)
    reconciler = simulated.transitions.reconciler
    assert (result.num_switches, reconciler.num_rolled_back) == (0, 1)
    assert "switching took over 30 s" in reconciler.last_failure["i0"]
    assert spans_of(result, "i0")[-1][0] == "shared:pd"
    assert simulated.books.instances["i0"].is_open


def test_a_move_that_finds_its_sequence_ended_holds_nothing_back() -> None:
    """Its last token comes while the copy is on its way."""
    slow = replace(ROUND, kv_move=MoveCosts(0.2, 1e9))
    ends_early = replace(text("a", outputs=50), max_tokens=100)
    simulated, result = played([ends_early], CHANGE, profile=slow, default_output_tokens=100)
    (past,) = simulated.transitions.reconciler.past
    assert (result.num_moves, past.cleared.num_moved) == (0, 0)
    assert past.clearing_s == about(0.2 + 144e-6)
