from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.dispatch import Dispatch
from coordinator.policy.lateness import LateYields
from coordinator.policy.scheduler import Slo
from coordinator.policy.turns import ArrivalTurns, FairTurns
from coordinator.policy.warmth import Warmth
from core.costs import decode_shape
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.clusters import clusters
from tests.coordinator.policy.driver import dispatched
from tests.coordinator.policy.warm import KnownWarmth, numbered, warmths

sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=4).map(tuple)
texts = st.builds(text, st.uuids().map(str), st.floats(0, 9), st.integers(1, 9000), st.integers(1, 500))
media = st.builds(pictures, st.uuids().map(str), st.floats(0, 9), sizes)
waves = st.lists(st.lists(st.one_of(texts, media), max_size=15), min_size=2, max_size=2)


def placed(cluster, waves, *, few, together, yields, warmth=None):
    """What waves are placed as, each while every other of those before decodes; and why."""
    books = books_of(*(instance(f"i{n}", *each) for n, each in enumerate(cluster)))
    decisions, turns = DecisionRing(), ArrivalTurns() if together else FairTurns()
    queueing = LateYields(Slo(2.0, 0.1, late_wait_s=5.0)) if yields else None  # what came before 4.0 is due
    costing = Costing(CostModel(PROFILE))
    dispatch = Dispatch(
        costing, turns, decisions, queueing=queueing, warmth=warmth, together=together, few=few
    )
    placements = []
    for wave in deepcopy(waves):
        for work in wave:
            books.queue(work)
        placements += dispatched(dispatch, books, 9.0)
        for work in list(books.running.values())[::2]:
            work.encoded.update(range(len(work.media)))
            work.is_prefilled = work.is_handed_over = True
            books.note(work)
    return placements, [(each.choice, each.numbers) for each in decisions.about()]


@given(clusters, waves, st.booleans(), st.booleans())
def test_few_and_many_are_weighed_alike(cluster, waves, together, yields):
    one_by_one, at_once = (
        placed(cluster, waves, few=few, together=together, yields=yields) for few in (len(cluster), 0)
    )
    assert one_by_one == at_once


@given(clusters, waves, st.lists(warmths, max_size=30), st.booleans(), st.booleans())
def test_few_and_many_weigh_caches_alike(cluster, waves, found, together, yields):
    warmth = KnownWarmth.of_waves(waves, found)
    one_by_one, at_once = (
        placed(cluster, waves, few=few, together=together, yields=yields, warmth=warmth)
        for few in (len(cluster), 0)
    )
    assert one_by_one == at_once


@given(clusters, waves, st.lists(warmths, max_size=30), st.booleans(), st.sampled_from([0, 64]))
def test_levels_are_weighed_as_a_mapping(cluster, waves, found, together, few):
    """As the index answers: numbers of one list, in which some are that the cluster has not."""
    names = [f"i{number}" for number in (8, 3, 5, 0, 7, 1, 6, 2, 4)]
    levels = [replace(each, prefix_tokens=numbered(each.prefix_tokens, names)) for each in found]
    plain = [replace(each, prefix_tokens=dict(each.prefix_tokens)) for each in levels]
    as_levels, as_mapping = (
        placed(
            cluster, waves, few=few, together=together, yields=True, warmth=KnownWarmth.of_waves(waves, each)
        )
        for each in (levels, plain)
    )
    assert as_levels == as_mapping


@given(clusters, waves, st.booleans(), st.sampled_from([0, 64]))
def test_cold_caches_change_no_choice(cluster, waves, together, few):
    """To the last bit: numbers weighed are compared, too."""
    unknown, cold, empty = (
        placed(cluster, waves, few=few, together=together, yields=True, warmth=warmth)
        for warmth in (None, KnownWarmth(), KnownWarmth(default=Warmth({"i0": 0}, (frozenset(),) * 4)))
    )
    assert unknown == cold == empty


@pytest.mark.parametrize("few", [0, 1])
def test_what_an_instance_plays_now_counts(few):
    """Rows are found anew where the books changed."""
    dispatch = Dispatch(Costing(CostModel(PROFILE)), FairTurns(), DecisionRing(), few=few)
    books = books_of(instance("a"))
    books.set_open("a", False)
    books.queue(text("t"))
    assert dispatch.place(books, 0.0) is None
    books.set_open("a", True)
    assert dispatch.place(books, 0.0).prefill == "a"


def test_costs_that_were_corrected_are_weighed_at_once():
    """Also on instances whose load has not changed since."""
    model, decisions = CostModel(PROFILE), DecisionRing()
    dispatch = Dispatch(Costing(model), FairTurns(), decisions)
    books = books_of(instance("a", "p"), instance("b", "d"))

    def step_s(request_id):
        books.queue(text(request_id))
        assert dispatch.place(books, 0.0).decode == "b"
        books.end(books.queued(request_id))
        return decisions.latest.numbers["decode_step_s"]

    before = step_s("early")
    for _ in range(50):
        model.note_step(decode_shape(8, 8000), 3 * PROFILE.step.decode_step_s(8, 8000))
    assert step_s("late") > 1.5 * before
