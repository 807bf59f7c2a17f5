"""Whatever is planned and whatever fails: instances end as planned or as before, and no stage is lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.plan import (
    Assignment,
    PlanError,
    check_assignments,
    lacking_stages,
)
from coordinator.policy.transition import Cleared
from core.stages import ModalityGroup, Stage
from tests.coordinator.policy.world import DEADLINE_S, World, plays

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
