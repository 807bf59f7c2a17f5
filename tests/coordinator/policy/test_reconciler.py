"""Whatever is planned and whatever fails: instances end as planned or as before, and no stage is lost."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.plan import (
    GROUPS,
    Assignment,
    PlanError,
    check_assignments,
    lacking_stages,
    needed_stages,
)
from coordinator.policy.reconciler import Reconciler
from coordinator.policy.transition import Cleared
from core.clock import ManualClock
from core.stages import ModalityGroup, Roles, Stage, parse_roles

TEXT, MULTI, SHARED = ModalityGroup.TEXT, ModalityGroup.MULTIMODAL, ModalityGroup.SHARED
DEADLINE_S = 5.0


def plays(roles: str, group: ModalityGroup = SHARED) -> Assignment:
    return Assignment(parse_roles(roles), group)


class World:
    """Instances that do as they are told when the test lets them."""

    def __init__(self, *present: Assignment) -> None:
        self.books, self.clock = Books(), ManualClock()
        self.lines: list[str] = []
        self.reconciler = Reconciler(
            self.books, self, self.clock, deadline_s=DEADLINE_S, note=self.lines.append
        )
        self.clearing: list[Callable[[Cleared], None]] = []
        self.telling: list[tuple[str, Assignment]] = []
        self.cleared: list[tuple[str, Roles]] = []
        for index, each in enumerate(present):
            self.books.add_instance(InstanceBook(f"i{index}", each.roles, each.group, 16, 100))

    def clear(self, instance_id: str, given_up: Roles, on_done: Callable[[Cleared], None]) -> None:
        self.cleared.append((instance_id, given_up))
        self.clearing.append(on_done)

    def set_roles(self, instance_id: str, assignment: Assignment) -> None:
        self.telling.append((instance_id, assignment))

    def reconcile(self, *wanted: Assignment) -> None:
        self.reconciler.reconcile({f"i{index}": each for index, each in enumerate(wanted)})

    def finish_clearing(self) -> None:
        for on_done in self._taken(self.clearing):
            on_done(Cleared())

    def answer(self) -> None:
        for name, assignment in self._taken(self.telling):
            self.say(name, assignment)

    def say(self, name: str, assignment: Assignment) -> None:
        if name in self.books.instances:
            self.books.set_roles(name, assignment.roles, assignment.group, self.clock.now_s())
            self.reconciler.note_roles(name, assignment)

    def settle(self) -> None:
        """Until nothing more happens by itself."""
        while self.clearing or self.telling:
            self.finish_clearing()
            self.answer()
            assert not self.lacking, self.present

    def finish_one(self, index: int) -> None:
        """One of the instances that clear or have been told is done with that."""
        if index < len(self.clearing):
            self.clearing.pop(index)(Cleared())
        else:
            self.say(*self.telling.pop(index - len(self.clearing)))

    @property
    def num_pending(self) -> int:
        return len(self.clearing) + len(self.telling)

    def check_one_at_a_time(self) -> None:
        """Where nobody takes new work of a stage and group, no more than one is closed by a switch."""
        for group in GROUPS:
            for stage in needed_stages(group):
                players = [
                    each for each in self.books.instances.values() if each.serves(group) and each.plays(stage)
                ]
                assert any(each.is_open for each in players) or len(players) == 1, (group, stage, players)

    @property
    def present(self) -> list[Assignment]:
        return [Assignment(book.roles, book.group) for book in self.books.instances.values()]

    @property
    def lacking(self) -> dict[ModalityGroup, Roles]:
        return lacking_stages(self.present)

    @staticmethod
    def _taken(things: list) -> list:
        taken, things[:] = list(things), []
        return taken


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
    with pytest.raises(PlanError, match="multimodal: nobody would play 'e'"):
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


ASSIGNMENTS = st.builds(
    Assignment,
    st.frozensets(st.sampled_from(list(Stage)), min_size=1),
    st.sampled_from(list(ModalityGroup)),
)


def random_assignments(rng: random.Random, count: int) -> list[Assignment]:
    """That serve both groups."""
    while True:
        made = [
            Assignment(frozenset(rng.sample(list(Stage), rng.randint(1, 3))), rng.choice(list(ModalityGroup)))
            for _ in range(count)
        ]
        if not lacking_stages(made):
            return made


@pytest.mark.parametrize("seed", range(20))
def test_random_plans_under_failures_end_as_planned_or_as_before(seed: int) -> None:
    """500 plans each, over two to six instances: answers lost, late or never, clearing that hangs."""
    rng = random.Random(seed)
    world = World(*random_assignments(rng, rng.randint(2, 6)))
    for _ in range(500):
        before = world.present
        wanted = random_assignments(rng, len(before))
        world.reconcile(*wanted)
        for _ in range(rng.randint(0, 12)):
            _let_something_happen(rng, world)
            assert not world.lacking, "a group was left without a stage"
            world.reconciler.check_integrity()
        _calm(world)
        world.reconcile(*wanted)
        world.settle()
        assert world.reconciler.num_under_way == 0
        assert world.present == wanted
    assert world.reconciler.num_done > 500
    assert world.reconciler.num_rolled_back > 20


def _let_something_happen(rng: random.Random, world: World) -> None:
    what = rng.random()
    if what < 0.4 and world.clearing:
        world.clearing.pop(rng.randrange(len(world.clearing)))(Cleared())
    elif what < 0.7 and world.telling:
        world.say(*world.telling.pop(0))
    elif what < 0.8 and world.telling:
        world.telling.pop(rng.randrange(len(world.telling)))  # the order is lost
    else:
        world.clock.advance(rng.choice((0.1, 1.0, DEADLINE_S)))
        world.reconciler.expire()


def _calm(world: World) -> None:
    """The world is well again: everything asked is answered in time."""
    for _ in range(100):
        world.settle()
        if world.reconciler.num_under_way == 0:
            return
        world.clock.advance(DEADLINE_S)
        world.reconciler.expire()
    raise AssertionError("transitions never end")


def made_to_serve(drawn: list[Assignment]) -> list[Assignment]:
    return [plays("epd"), *drawn[1:]] if lacking_stages(drawn) else drawn


@settings(max_examples=300, deadline=None)
@given(st.lists(ASSIGNMENTS, min_size=2, max_size=6).map(made_to_serve), st.data())
def test_two_never_close_where_nobody_else_is_open(present: list[Assignment], data: st.DataObject) -> None:
    """In whatever order instances are cleared and answer."""
    some = st.lists(ASSIGNMENTS, min_size=len(present), max_size=len(present))
    wanted = data.draw(some.map(made_to_serve))
    world = World(*present)
    world.reconcile(*wanted)
    world.check_one_at_a_time()
    while world.num_pending:
        world.finish_one(data.draw(st.integers(0, world.num_pending - 1)))
        world.check_one_at_a_time()
    assert world.present == wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(ASSIGNMENTS, min_size=1, max_size=6), st.data())
def test_a_served_cluster_is_served_at_every_moment(present: list[Assignment], data: st.DataObject) -> None:
    if lacking_stages(present):
        return
    wanted = data.draw(st.lists(ASSIGNMENTS, min_size=len(present), max_size=len(present)))
    world = World(*present)
    try:
        check_assignments(wanted)
    except PlanError:
        with pytest.raises(PlanError):
            world.reconcile(*wanted)
        return
    world.reconcile(*wanted)
    world.settle()
    assert world.present == wanted


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
