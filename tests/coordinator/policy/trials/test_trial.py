"""Two policy sets on shares of the instances."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.books import Books
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.seat import Arm, Seat
from coordinator.policy.sets import POLICY_SETS, make_scheduler
from coordinator.policy.trials.lineup import Lineup
from coordinator.policy.trials.marked_ring import MarkedRing
from coordinator.policy.trials.shares import home_of
from coordinator.policy.trials.trial import Trial, TrialError
from coordinator.policy.warmth import Warmth
from coordinator.policy.work import Work
from core.costs import StepShape
from core.stages import COUPLED, ModalityGroup
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.workload.request import Request
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.driver import dispatched
from tests.coordinator.policy.trials.test_shadow import workloads
from tests.simulator.profiles import ROUND

SLO = Slo(1.0, 0.5)
SETS = sorted(set(POLICY_SETS) - {"fixed"})


def try_beside(
    lineup: Lineup, policies: tuple[str, str], other: Scheduler, books: Books, share: float
) -> Trial:
    sets = {Arm.A: (policies[0], lineup.main), Arm.B: (policies[1], other)}
    trial = Trial("x", books, sets, share, 0.0)
    lineup.begin(trial)
    return trial


def started(
    books: Books, acting: str = "emp", tried: str = "coupled", share: float = 0.5
) -> tuple[Lineup, Trial]:
    lineup = Lineup(make_scheduler(acting, PROFILE, SLO))
    other = make_scheduler(tried, PROFILE, SLO, decisions=MarkedRing(lineup.decisions, Arm.B))
    return lineup, try_beside(lineup, (acting, tried), other, books, share)


def keyed(arm: Arm, count: int, share: float = 0.5) -> list[str]:
    """Names of requests whose home is that arm."""
    names = (f"r{number}" for number in range(1000))
    return [name for name in names if home_of("x", name.encode(), share) is arm][:count]


def four() -> Books:
    return books_of(*(instance(name) for name in "cabd"))


def test_each_set_has_its_share_of_instances_and_requests() -> None:
    books = four()
    lineup, trial = started(books)
    assert [trial.instances(arm) for arm in Arm] == [["a", "b"], ["c", "d"]]
    works = [text(f"r{number}") for number in range(40)]
    for work in works:
        books.queue(work)
        trial.check_integrity()
    dispatched(lineup, books)
    for work in works:
        if work.placement is not None:
            arms = {books.instances[name].arm for name in work.placement.instance_ids}
            assert arms == {work.seat.arm} == {work.seat.home}
    assert {work.seat.arm for work in works if work.placement} == set(Arm)


def test_a_conversation_stays_in_one_arm() -> None:
    books = four()
    started(books)
    works = [text(f"r{number}") for number in range(20)]
    for work in works:
        work.conversation = b"one"
        books.queue(work)
    assert len({work.seat for work in works}) == 1


def test_requests_of_an_arm_that_cannot_serve_them_cross_over_and_come_back_while_they_wait() -> None:
    books = books_of(instance("a"), instance("b"))
    lineup, trial = started(books)
    (name,) = keyed(Arm.B, 1)
    work = text(name)
    books.queue(work)
    assert work.seat == Seat(Arm.B, Arm.B, "x")
    books.remove_instance("b")
    books.set_open("a", False)
    assert lineup.place(books, 1.0) is None
    assert (work.seat, work.seat.has_crossed) == (Seat(Arm.B, Arm.A, "x"), True)
    trial.check_integrity()
    books.add_instance(instance("b"))
    placement = lineup.place(books, 2.0)
    assert placement is not None
    assert (placement.prefill, work.seat) == ("b", Seat(Arm.B, Arm.B, "x"))


def test_a_modality_that_an_arm_lacks_crosses_over_alone() -> None:
    books = books_of(instance("a"), instance("b", "pd"))
    lineup, _ = started(books, "emp", "emp")
    names = keyed(books.instances["b"].arm, 2)
    works = [text(names[0]), pictures(names[1])]
    for work in works:
        books.queue(work)
    dispatched(lineup, books)
    assert [work.placement.prefill for work in works] == ["b", "a"]
    assert [work.seat.has_crossed for work in works] == [False, True]


def test_what_is_too_large_for_an_arm_crosses_over() -> None:
    books = books_of(instance("a"), instance("b", kv_blocks=10))
    started(books)
    (name,) = keyed(Arm.B, 1)
    work = text(name, prompt=1000)
    books.queue(work)
    assert work.seat.has_crossed


def test_prefixes_of_the_other_arm_are_not_pulled() -> None:
    class Everywhere:
        version = 0

        def of(self, _: Work) -> Warmth:
            return Warmth({"a": 3200, "b": 3200})

    books = books_of(instance("a"), instance("b"))
    lineup = Lineup(make_scheduler("emp", PROFILE, SLO, warmth=Everywhere()))
    try_beside(lineup, ("emp", "emp"), make_scheduler("emp", PROFILE, SLO, warmth=Everywhere()), books, 0.5)
    books.instances["a"].load.prefill_s = books.instances["b"].load.prefill_s = 1.0
    for name in (*keyed(Arm.A, 3), *keyed(Arm.B, 3)):
        books.queue(text(name, prompt=4000))
    for placement in dispatched(lineup, books):
        assert placement.prefix == placement.prefill


def test_the_end_gives_all_back_with_what_waits() -> None:
    books = four()
    lineup, _ = started(books)
    works = [text(f"r{number}", prompt=4000) for number in range(30)]
    for work in works:
        books.queue(work)
    dispatched(lineup, books)
    lineup.end_trial()
    assert {book.arm for book in books.instances.values()} == {None}
    assert {work.seat for work in works if work.placement is None} == {None}
    assert books.follower is None
    while books.has_waiting:
        for work in list(books.running.values()):
            books.end(work)
        dispatched(lineup, books, 1.0)
    books.check_integrity()


def test_instances_play_again_what_they_did_where_the_main_set_has_no_opinion() -> None:
    books = books_of(instance("a"), instance("b"), instance("c", "p"), instance("d"))
    lineup, trial = started(books, "fixed", "coupled", 0.75)
    assert trial.instances(Arm.B) == ["b", "c", "d"]
    books.set_roles("c", COUPLED, ModalityGroup.SHARED, 1.0)
    lineup.end_trial()
    wanted = lineup.plan(books, 2.0).wanted
    assert {name: str(to) for name, to in wanted.items()} == {"c": "shared:p"}
    books.set_roles("c", wanted["c"].roles, ModalityGroup.SHARED, 3.0)
    assert lineup.plan(books, 4.0).wanted == {}


def test_nobody_goes_back_to_what_would_leave_a_stage_to_nobody() -> None:
    books = books_of(instance("a"), instance("c", "p"), instance("d"))
    lineup, trial = started(books, "fixed", "coupled", 0.6)
    assert trial.instances(Arm.B) == ["c", "d"]
    books.set_roles("c", COUPLED, ModalityGroup.SHARED, 1.0)
    lineup.end_trial()
    for name in ("a", "d"):
        books.remove_instance(name)
    assert lineup.plan(books, 2.0).wanted == {}
    books.add_instance(instance("a"))
    assert set(lineup.plan(books, 3.0).wanted) == {"c"}


def test_what_was_running_before_belongs_to_no_arm() -> None:
    books = four()
    lineup = Lineup(make_scheduler("emp", PROFILE, SLO))
    work = text("r")
    books.queue(work)
    dispatched(lineup, books)
    trial = try_beside(lineup, ("emp", "coupled"), make_scheduler("coupled", PROFILE, SLO), books, 0.5)
    assert work.seat is None
    lineup.note_first_token(work, 0.1)
    trial.check_integrity()


def test_newcomers_go_where_the_share_is_lacking_and_those_who_come_back_where_they_were() -> None:
    books = books_of()
    lineup, trial = started(books)
    for name in "abcd":
        books.add_instance(instance(name))
        lineup.plan(books, 0.0)
    assert [trial.instances(arm) for arm in Arm] == [["a", "c"], ["b", "d"]]
    books.remove_instance("c")
    lineup.plan(books, 1.0)
    books.add_instance(instance("c"))
    lineup.plan(books, 2.0)
    assert trial.instances(Arm.A) == ["a", "c"]
    assert [trial.instance_s(arm, 3.0) for arm in Arm] == [5.0, 6.0]


def test_decisions_of_both_are_in_one_ring_and_say_whose_they_are() -> None:
    books = four()
    lineup, _ = started(books)
    for name in (*keyed(Arm.A, 1), *keyed(Arm.B, 1)):
        books.queue(text(name))
    dispatched(lineup, books)
    arms = {each.subject: each.arm for each in lineup.decisions.about() if each.piece == "dispatch"}
    assert arms == {keyed(Arm.A, 1)[0]: None, keyed(Arm.B, 1)[0]: Arm.B}


def test_measurements_go_to_the_arm_of_the_instance() -> None:
    class Heard(Lineup):
        def __init__(self) -> None:
            super().__init__(make_scheduler("emp", PROFILE, SLO))
            self.steps: list[str] = []

        def note_step(self, instance_id: str, *_: object) -> None:
            self.steps.append(instance_id)

    books = books_of(instance("a"), instance("b"))
    main, other = Heard(), Heard()
    lineup = Lineup(main)
    try_beside(lineup, ("emp", "emp"), other, books, 0.5)
    for name in ("a", "b", "gone"):
        lineup.note_step(name, StepShape(), 0.1)
    assert (main.steps, other.steps) == (["a", "gone"], ["b"])


@pytest.mark.parametrize(
    ("books", "policies", "reason"),
    [
        (books_of(instance("a")), ("emp", "coupled"), "one instance cannot be divided"),
        (
            books_of(instance("a", "ep"), instance("b", "d")),
            ("fixed", "emp"),
            "a (fixed) would have nobody to play",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_and_nothing_is_changed(
    books: Books, policies: tuple[str, str], reason: str
) -> None:
    version = books.version
    with pytest.raises(TrialError) as caught:
        started(books, *policies)
    assert reason in str(caught.value)
    assert (books.version, books.follower) == (version, None)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SETS),
    st.sampled_from(SETS),
    workloads(),
    st.integers(2, 6),
    st.sampled_from((0.2, 0.5, 0.7)),
    st.sampled_from((0.0, 0.4, 2.0)),
    st.sampled_from((0.5, 3.0)),
)
def test_all_requests_are_served_whenever_it_starts_and_ends(
    acting: str,
    tried: str,
    requests: list[Request],
    instances: int,
    share: float,
    start_s: float,
    length_s: float,
) -> None:
    lineup = Lineup(make_scheduler(acting, ROUND, SLO))
    cluster = Cluster(ClusterConfig(instances, ROUND), lineup, requests)
    other = make_scheduler(tried, ROUND, SLO)

    def start(_: object) -> None:
        try_beside(lineup, (acting, tried), other, cluster.books, share).check_integrity()

    def end(_: object) -> None:
        assert lineup.trial is not None
        lineup.trial.check_integrity()
        lineup.end_trial()

    cluster.events.at(start_s, start, None)
    cluster.events.at(start_s + length_s, end, None)
    result = cluster.run()
    cluster.check_idle()
    assert all(record.state.value == "finished" for record in result.records)
