from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.change import DECODE_SCALING, Change
from coordinator.policy.forms import PD
from coordinator.policy.hysteresis import Hysteresis
from coordinator.policy.pieces import Piece
from coordinator.policy.plan import Assignment, PlanError, check_assignments
from coordinator.policy.reshape import Reshaper
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.search import Search
from coordinator.policy.sets import POLICY_SETS, make_scheduler
from coordinator.policy.work import Work
from core.stages import COUPLED, ModalityGroup, Stage
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.mini_cluster import STEP_S, MiniCluster

SLO = Slo(0.5, 0.1, 2.0)


def emp(*without: str) -> Scheduler:
    return make_scheduler("emp", PROFILE, SLO, without=without)


Arrivals = Callable[[float], list[Work]]


def constant(texts: float, images: float, *, prompt: int = 200, num_pictures: int = 1) -> Arrivals:
    """So many requests a second of each kind, evenly spaced."""
    sizes = (1000,) * num_pictures

    def arrivals(now_s: float) -> list[Work]:
        found: list[Work] = []
        for rate, kind in ((texts, "text"), (images, "pictures")):
            first, last = int(now_s * rate + 1e-9), int((now_s + STEP_S) * rate + 1e-9)
            names = [f"{kind}{number} at {now_s:g}" for number in range(first, last)]
            if kind == "text":
                found += [text(name, now_s, prompt=prompt) for name in names]
            else:
                found += [pictures(name, now_s, sizes=sizes) for name in names]
        return found

    return arrivals


STORM = constant(40, 8, prompt=1500, num_pictures=4)  # more than coupled instances bear


def square_wave(period_s: float, quiet: Arrivals, busy: Arrivals) -> Arrivals:
    """The busy load for every second half of a period."""
    return lambda now_s: (busy if now_s % period_s >= period_s / 2 else quiet)(now_s)


def test_light_load_and_text_alone_stay_coupled():
    for arrivals in (constant(2, 1), constant(20, 0)):
        cluster = MiniCluster(emp(), 8)
        cluster.run(30, arrivals)
        assert not cluster.changes
        assert all(book.roles == COUPLED for book in cluster.books.instances.values())


@pytest.mark.parametrize(("prompt", "is_asked"), [(200, False), (9000, True)])
def test_forms_are_searched_only_where_one_could_be_better_by_enough(monkeypatch, prompt, is_asked):
    asked, best = [], Search.best
    monkeypatch.setattr(Search, "best", lambda *given: asked.append(given) or best(*given))
    MiniCluster(emp(), 8).run(5, constant(10, 1, prompt=prompt))
    assert bool(asked) is is_asked


@pytest.mark.parametrize("images", [2, 20, 28, 34])
def test_constant_load_moves_nothing_after_settling(images):
    cluster = MiniCluster(emp(), 8)
    cluster.run(90, constant(10, images))
    assert not [change for change in cluster.changes if change[0] > 45]


def test_a_square_wave_does_not_oscillate():
    cluster = MiniCluster(emp(), 8)
    cluster.run(180, square_wave(60, constant(21, 2), STORM))
    assert cluster.changes
    assert len([change for change in cluster.changes if change[0] > 60]) <= 2 * 2 * 8


def test_a_storm_of_long_prompts_changes_the_form_and_says_why():
    scheduler = emp()
    cluster = MiniCluster(scheduler, 8)
    cluster.run(10, constant(21, 2))
    assert not cluster.changes
    cluster.run(30, STORM)
    assert cluster.changes
    reasons = [each for each in scheduler.decisions.about("cluster") if each.piece == "search"]
    weighed = {"score_before", "score", "text_demand", "multimodal_demand", "multimodal_burst_rps"}
    assert weighed <= reasons[0].numbers.keys()
    name = cluster.changes[0][1]
    assert any("to" in each.choice for each in scheduler.decisions.about(name))


@pytest.mark.parametrize(
    "name",
    [*(each for each in POLICY_SETS if each != "fixed"), *(f"emp without {piece.value}" for piece in Piece)],
)
def test_every_set_serves_all_of_a_mixed_load(name):
    policy, _, without = name.partition(" without ")
    scheduler = make_scheduler(policy, PROFILE, SLO, without=[without] if without else [])
    cluster = MiniCluster(scheduler, 8)
    cluster.run(6, constant(10, 8))
    cluster.run(40, lambda _: [])
    assert not cluster.books.running
    assert not cluster.books.num_waiting()


def test_without_search_the_groups_are_apart():
    cluster = MiniCluster(emp("search"), 8)
    cluster.run(10, constant(10, 8))
    groups = {book.group for book in cluster.books.instances.values()}
    assert groups == {ModalityGroup.TEXT, ModalityGroup.MULTIMODAL}


def test_without_hysteresis_more_moves():
    changes = []
    for without in ((), ("hysteresis",)):
        cluster = MiniCluster(emp(*without), 8)
        cluster.run(60, square_wave(10, constant(21, 2), STORM))
        changes.append(len(cluster.changes))
    assert changes[0] < changes[1]


@pytest.mark.parametrize(("piece", "is_made"), [(DECODE_SCALING, True), ("balancer reactive", False)])
def test_forms_that_take_turns_are_held_but_not_loans_to_decode(monkeypatch, piece, is_made):
    """An instance that is lent comes back by itself."""
    monkeypatch.setattr(Hysteresis, "may_take", lambda *_: False)
    books = books_of(*(instance(name, "epd", "shared") for name in "abc"))
    wanted = {name: Assignment(COUPLED, ModalityGroup.SHARED) for name in "abc"}
    to = Assignment(frozenset({Stage.DECODE}), ModalityGroup.SHARED)
    changed = emp()._with(books, wanted, Change(piece, "a", to, 1.0, 0.0, "for the test"), 1.0)
    assert (changed["a"] == to) is is_made


@pytest.mark.parametrize(("num_sequences", "is_made"), [(256, False), (257, True)])
def test_where_batches_are_full_decode_is_lent_an_instance_whatever_is_predicted(
    monkeypatch, num_sequences, is_made
):
    monkeypatch.setattr(Reshaper, "worsens", lambda *_: True)
    books = books_of(*(instance(name, "ep", "shared") for name in "ab"), instance("d", "d", "shared"))
    books.instances["d"].load.sequences = num_sequences
    assert PROFILE.max_sequences == 256
    wanted = {name: Assignment(book.roles, book.group) for name, book in books.instances.items()}
    change = Change(DECODE_SCALING, "a", wanted["d"], 1.0, 0.0, "for the test")
    assert (emp()._with(books, wanted, change, 1.0)["a"] == wanted["d"]) is is_made
    other = replace(change, piece="balancer reactive")
    assert emp()._with(books, wanted, other, 1.0) == wanted


def test_a_pinned_instance_keeps_what_it_plays():
    cluster = MiniCluster(emp("search"), 8)
    pinned = cluster.books.instances["i3"]
    pinned.is_pinned = True
    cluster.run(10, constant(10, 8))
    assert cluster.changes
    assert pinned.roles == COUPLED


@pytest.mark.parametrize(("num_pinned", "num_more"), [(0, 4), (3, 1)])
def test_what_is_pinned_to_text_takes_of_its_load(num_pinned, num_more):
    cluster = MiniCluster(emp("search"), 8)
    pinned = [f"i{number}" for number in range(num_pinned)]
    for name in pinned:
        cluster.books.instances[name].is_pinned = True
        cluster.books.set_roles(name, PD, ModalityGroup.TEXT, 0.0)
    cluster.run(10, constant(60, 8))
    groups = [each.group for name, each in cluster.plans[-1].wanted.items() if name not in pinned]
    assert groups.count(ModalityGroup.TEXT) == num_more


def test_a_lost_stage_is_repaired_at_once():
    scheduler = emp("search")
    cluster = MiniCluster(scheduler, 4)
    cluster.run(10, constant(5, 2))
    encoders = [name for name, book in cluster.books.instances.items() if book.plays(Stage.ENCODE)]
    cluster.run(40, lambda _: [])
    for name in encoders:
        cluster.books.remove_instance(name)
    scheduler.plan(cluster.books, cluster.now_s).check()
    assert any(each.piece == "repair" for each in scheduler.decisions.about("cluster"))


clusters = st.lists(
    st.tuples(
        st.sampled_from(["e", "p", "d", "ep", "pd", "epd"]),
        st.sampled_from(["text", "multimodal", "shared"]),
        st.sampled_from(["free", "pinned", "drained"]),
    ),
    min_size=1,
    max_size=10,
)
loads = st.tuples(st.integers(0, 200), st.integers(0, 100))


@settings(max_examples=40)
@given(clusters, loads, st.sets(st.sampled_from([piece.value for piece in Piece]), max_size=3))
def test_whatever_the_cluster_plans_are_whole(cluster, load, without):
    """All instances are planned for, pinned and drained ones as they are; no stage is left to nobody."""
    books = books_of(*(instance(f"i{n}", roles, group) for n, (roles, group, _) in enumerate(cluster)))
    for number, (_, _, how) in enumerate(cluster):
        books.instances[f"i{number}"].is_pinned = how == "pinned"
        books.set_drained(f"i{number}", how == "drained")
        books.set_open(f"i{number}", how != "drained")
    scheduler = emp(*without)
    for number in range(load[0]):
        _arrive(scheduler, books, text(f"t{number}", number / 40))
    for number in range(load[1]):
        _arrive(scheduler, books, pictures(f"m{number}", number / 40))
    for tick in range(12):
        plan = scheduler.plan(books, 5.0 + tick)
        assert plan.wanted.keys() == books.instances.keys()
        for name, book in books.instances.items():
            if book.is_pinned or book.is_drained:
                assert plan.wanted[name] == Assignment(book.roles, book.group)
        if any(how == "free" for _, _, how in cluster):
            check_assignments(
                each for name, each in plan.wanted.items() if not books.instances[name].is_drained
            )


def drained(cluster, name):
    cluster.books.set_drained(name, True)
    cluster.books.set_open(name, False)


def test_a_drained_instance_is_not_planned_with():
    """The others take the form that so many take by themselves, and the drained one stays as it was."""
    clusters = MiniCluster(emp("search"), 8), MiniCluster(emp("search"), 6)
    for name in ("i6", "i7"):
        drained(clusters[0], name)
    for cluster in clusters:
        cluster.run(10, constant(10, 8))
    forms = [
        Counter(str(each) for name, each in cluster.plans[-1].wanted.items() if name not in ("i6", "i7"))
        for cluster in clusters
    ]
    assert forms[0] == forms[1]
    assert {str(clusters[0].plans[-1].wanted[name]) for name in ("i6", "i7")} == {"shared:epd"}


def test_a_drained_instance_does_not_count_as_under_way():
    """Half of the instances may change at a time: four that are drained do not stand in the way."""
    cluster = MiniCluster(emp("search"), 8)
    for name in ("i4", "i5", "i6", "i7"):
        drained(cluster, name)
    cluster.run(10, constant(10, 8))
    assert cluster.changes


def test_with_all_drained_nothing_is_planned():
    scheduler, books = emp(), books_of(instance("i0"))
    books.set_drained("i0", True)
    assert scheduler.plan(books, 0.0).wanted == {"i0": Assignment(COUPLED)}
    assert not list(scheduler.decisions.about())


def _arrive(scheduler, books, work):
    books.queue(work)
    scheduler.note_arrival(work, work.arrival_s)


def test_the_check_refuses_a_group_without_a_stage():
    plays = [Assignment(frozenset((stage,))) for stage in (Stage.PREFILL, Stage.DECODE)]
    with pytest.raises(PlanError, match="nobody would play encode for multimodal requests"):
        check_assignments(plays)


def test_an_unknown_piece_is_named():
    with pytest.raises(ValueError, match="pieces: magic"):
        emp("magic")
    with pytest.raises(ValueError, match="coupled has none"):
        make_scheduler("coupled", PROFILE, SLO, without=["search"])
