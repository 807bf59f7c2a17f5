"""One transition after the other: how instances come to play what is wanted, and what is refused."""

from __future__ import annotations

import pytest

from coordinator.policy.plan import (
    PlanError,
)
from coordinator.policy.transition import Cleared
from core.stages import Stage, parse_roles
from tests.coordinator.policy.world import DEADLINE_S, MULTI, SHARED, TEXT, World, plays


def test_an_instance_is_closed_cleared_switched_and_opened() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    book = world.books.instances["i1"]
    assert world.cleared == [("i1", frozenset({Stage.DECODE}))]
    assert not book.is_open
    assert world.reconciler.state_of("i1") == "clearing, to shared:p"
    world.finish_clearing()
    assert world.reconciler.state_of("i1") == "switching, to shared:p"
    world.answer()
    assert book.is_open
    assert book.roles == {Stage.PREFILL}
    assert world.reconciler.num_done == 1
    world.reconciler.check_integrity()


def test_what_a_transition_took_is_kept() -> None:
    world = World(plays("epd"), plays("d"))
    world.books.instances["i1"].load.sequences = 3
    world.reconcile(plays("epd"), plays("p"))
    world.clock.advance(2.0)
    world.clearing.pop()(Cleared(num_moved=2, size_bytes=7))
    world.clock.advance(0.5)
    world.answer()
    (past,) = world.reconciler.past
    assert (past.number, past.instance_id, past.after, past.is_done) == (1, "i1", plays("p"), True)
    assert (past.clearing_s, past.took_s, past.ended_s) == (2.0, 2.5, world.clock.now_s())
    assert (past.num_resident, past.cleared) == (3, Cleared(2, 7))


def test_a_transition_rolled_back_is_kept_too() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    world.clock.advance(DEADLINE_S)
    world.reconciler.expire()
    (past,) = world.reconciler.past
    assert (past.is_done, past.took_s, past.clearing_s) == (False, DEADLINE_S, DEADLINE_S)


def test_starts_and_ends_are_told_in_words() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    world.finish_clearing()
    world.clock.advance(0.25)
    world.answer()
    assert world.lines == [
        "instance i1: from shared:d to shared:p",
        "instance i1: done after 0.250 s, plays shared:p",
    ]


def test_two_instances_trade_roles_without_a_gap() -> None:
    world = World(plays("ep"), plays("d"))
    world.reconcile(plays("d"), plays("ep"))
    world.settle()
    assert world.present == [plays("d"), plays("ep")]
    world.reconciler.check_integrity()


def test_two_instances_trade_groups_without_a_gap() -> None:
    world = World(plays("pd", TEXT), plays("epd", MULTI))
    world.reconcile(plays("epd", MULTI), plays("pd", TEXT))
    world.settle()
    assert world.present == [plays("epd", MULTI), plays("pd", TEXT)]


def test_a_plan_that_leaves_a_group_without_a_stage_is_refused() -> None:
    world = World(plays("epd"), plays("d"))
    with pytest.raises(PlanError, match="nobody would play encode for multimodal requests"):
        world.reconcile(plays("pd"), plays("d"))
    assert not world.cleared


def test_the_last_open_one_waits_for_one_that_switches() -> None:
    world = World(plays("epd"), plays("pd"), plays("pd"))
    world.reconcile(plays("epd", MULTI), plays("epd"), plays("epd"))
    first, second, third = world.books.instances.values()
    assert (first.is_open, second.is_open, third.is_open) == (False, False, True)
    assert world.reconciler.must_stay_open("i2")
    world.settle()
    assert world.present == [plays("epd", MULTI), plays("epd"), plays("epd")]


def test_it_waits_also_for_one_that_is_to_play_the_stage() -> None:
    world = World(plays("epd"), plays("pd"))
    world.reconcile(plays("epd", MULTI), plays("epd"))
    world.finish_clearing()
    world.answer()
    assert world.reconciler.num_done == 1
    assert not world.reconciler.must_stay_open("i1")


def test_switches_of_different_stages_go_on_at_once() -> None:
    world = World(plays("epd"), plays("e"), plays("p"), plays("d"))
    world.reconcile(plays("epd"), plays("p"), plays("d"), plays("e"))
    assert world.reconciler.num_under_way == 3


def test_clearing_and_switching_have_the_whole_deadline_each() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    world.clock.advance(DEADLINE_S - 1)
    world.finish_clearing()
    world.clock.advance(DEADLINE_S - 1)
    world.reconciler.expire()
    world.answer()
    assert world.present[1] == plays("p")


def test_what_does_not_answer_is_told_to_go_back() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    world.finish_clearing()
    world.telling.clear()  # lost
    world.clock.advance(DEADLINE_S)
    world.reconciler.expire()
    assert world.telling == [("i1", plays("d"))]
    assert not world.books.instances["i1"].is_open
    world.answer()
    assert world.books.instances["i1"].is_open
    assert world.present[1] == plays("d")
    assert world.reconciler.num_rolled_back == 1
    assert "switching took over 5 s" in world.reconciler.last_failure["i1"]


def test_clearing_that_takes_too_long_leaves_all_as_it_was() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    world.clock.advance(DEADLINE_S)
    world.reconciler.expire()
    assert world.books.instances["i1"].is_open
    world.finish_clearing()  # too late: nothing comes of it
    assert not world.telling
    world.reconciler.check_integrity()


def test_what_others_are_about_to_give_up_does_not_count_for_a_drain() -> None:
    world = World(plays("epd"), plays("epd"))
    world.reconcile(plays("d"), plays("epd"))
    assert all(each.roles == parse_roles("epd") for each in world.present)
    with pytest.raises(PlanError, match="nobody would play"):
        world.reconciler.drain("i1", lambda: None)
    assert not world.books.instances["i1"].is_drained


def test_a_drained_instance_stays_closed_until_it_is_resumed() -> None:
    world = World(plays("epd"), plays("d"))
    done: list[bool] = []
    world.reconciler.drain("i1", lambda: done.append(True))
    world.reconcile(plays("epd"), plays("p"))
    assert world.cleared == [("i1", frozenset(Stage))]
    world.finish_clearing()
    assert done
    assert not world.books.instances["i1"].is_open
    assert world.books.instances["i1"].is_drained
    with pytest.raises(PlanError):
        world.reconciler.drain("i0", lambda: None)
    world.reconciler.resume("i1")
    assert world.books.instances["i1"].is_open
    assert not world.books.instances["i1"].is_drained
    world.reconciler.check_integrity()


def test_a_drain_is_under_way_until_nothing_lies_there() -> None:
    world = World(plays("epd"), plays("d"))
    world.books.instances["i1"].load.sequences = 1
    world.reconciler.drain("i1", lambda: None)
    assert world.reconciler.state_of("i1") == "draining"
    world.books.instances["i1"].load.sequences = 0
    assert world.reconciler.state_of("i1") == "drained"


def test_an_instance_may_go_at_any_moment() -> None:
    world = World(plays("epd"), plays("d"))
    world.reconcile(plays("epd"), plays("p"))
    world.books.remove_instance("i1")
    world.reconciler.lose("i1")
    world.settle()
    assert world.reconciler.num_under_way == 0
    world.reconciler.check_integrity()


def test_what_is_settled_is_looked_at_again_only_after_a_change() -> None:
    """The same wish begins nothing; what an instance plays otherwise is put right."""
    world = World(plays("epd"), plays("d"))
    for _ in range(3):
        world.reconcile(plays("epd"), plays("d"))
    assert not world.cleared
    world.books.set_roles("i1", parse_roles("p"), SHARED, 0.0)
    world.reconcile(plays("epd"), plays("d"))
    assert [name for name, _ in world.cleared] == ["i1"]


def test_a_wish_is_compared_by_what_it_holds() -> None:
    world = World(plays("epd"), plays("d"))
    wanted = {"i0": plays("epd"), "i1": plays("d")}
    world.reconciler.reconcile(wanted)
    wanted["i1"] = plays("p")
    world.reconciler.reconcile(wanted)
    assert [name for name, _ in world.cleared] == ["i1"]
