import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.books import Books
from coordinator.policy.lateness import ArrivalQueueing, LateYields, ServiceTime
from coordinator.policy.scheduler import Slo
from coordinator.policy.view import Placement
from core.stages import ModalityGroup
from tests.coordinator.policy.cluster import text

TEXT = ModalityGroup.TEXT
SLO = Slo(2.0, 0.1)
IMPATIENT = Slo(2.0, 0.1, late_wait_s=30.0)


def waiting(*arrivals_s, **more):
    books = Books()
    for number, arrival_s in enumerate(arrivals_s):
        books.queue(text(f"r{number}", arrival_s, **more))
    return books


def first(books, now_s, queueing=None):
    work = (queueing or LateYields(IMPATIENT)).first(books, TEXT, now_s)
    return None if work is None else work.request_id


def test_order_is_strict_while_nobody_is_late():
    assert first(waiting(0.0, 0.5), 0.9) == "r0"
    assert first(waiting(), 0.9) is None


def test_the_late_one_yields_to_the_first_that_can_be_in_time():
    assert first(waiting(0.0, 4.0, 9.5, 9.8), 10.0) == "r2"


def test_the_late_one_goes_on_where_all_are_late_or_it_has_waited_too_long():
    assert first(waiting(0.0, 4.0), 10.0) == "r0"
    assert first(waiting(0.0, 29.9), 30.0) == "r0"


def test_priorities_keep_the_order_strict():
    books = waiting(0.0, 9.5)
    books.queue(text("urgent", 9.9, priority=1))
    assert first(books, 9.99) == first(books, 9.99, ArrivalQueueing()) == "urgent"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_nobody_is_starved(arrivals_s):
    """Whoever has waited longest goes first once that is past the bound; somebody always goes."""
    books = waiting(*arrivals_s)
    now_s = max(arrivals_s)
    chosen = LateYields(IMPATIENT).first(books, TEXT, now_s)
    assert chosen is not None
    if now_s - min(arrivals_s) >= 30.0:
        assert chosen.arrival_s == min(arrivals_s)


def measured(queueing, *seconds, target=TEXT):
    """So many requests of the group took so long on instances, from dispatch to the first token."""
    for number, took_s in enumerate(seconds):
        work = text(f"done{number}", 0.0)
        assert work.group is target
        work.placement = Placement(work.request_id, (), "i", "i", 0.0)
        queueing.shown(work, took_s)
    return queueing


def test_what_instances_take_tells_who_is_late():
    quick = measured(LateYields(SLO), *[0.1] * 8)
    slow = measured(LateYields(SLO), *[1.7] * 8)
    books = waiting(0.0, 8.2, 9.8)  # at 10 s, with a target of 2 s
    assert first(books, 10.0) == "r2"
    assert first(books, 10.0, quick) == "r1"
    assert first(waiting(0.0, 9.5, 9.8), 10.0, slow) == "r2"


def test_where_instances_take_longer_than_the_target_the_latest_goes():
    slow = measured(LateYields(SLO), *[5.0] * 8)
    assert first(waiting(0.0, 9.5, 9.9), 10.0, slow) == "r2"


def sized(name, seconds, arrival_s=0.0):
    work = text(name, arrival_s)
    work.prefill_s = seconds
    return work


def test_service_time_is_the_own_work_and_a_high_quantile_of_what_is_added():
    service, own = ServiceTime(2.0), sized("own", 0.5)
    assert (service.least_s, service.most_s(own)) == (1.0, 1.5)
    for number in range(64):
        done = sized(str(number), 0.1 * (number % 2))
        service.note(done, done.prefill_s + (1.5 if number == 3 else 0.5 if number > 60 else 0.25))
    assert (service.least_s, service.most_s(own)) == (0.25, 0.75)
    assert service.most_s(sized("large", 5.0)) == 0.9 * 2.0


def test_a_large_request_is_late_sooner_than_a_small_one():
    quick = measured(LateYields(SLO), *[0.1] * 8)
    books = Books()
    for work in (sized("old", 0.1), sized("large", 1.2, 9.0), sized("small", 0.1, 9.1)):
        books.queue(work)
    assert first(books, 9.5, quick) == "large"
    assert first(books, 9.9, quick) == "small"


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 3)), min_size=1, max_size=30))
def test_who_goes_before_an_earlier_one_can_be_in_time_and_those_between_cannot(works):
    books, queueing, now_s = Books(), LateYields(SLO), 4.0
    for number, (arrival_s, seconds) in enumerate(works):
        books.queue(sized(f"r{number:02}", seconds, arrival_s))
    service = ServiceTime(SLO.ttft_s)
    ordered = sorted((books.queued(f"r{number:02}") for number in range(len(works))), key=lambda w: w.order)
    in_time = [w for w in ordered if w.arrival_s >= now_s - SLO.ttft_s + service.most_s(w)]
    assert queueing.first(books, TEXT, now_s) is (in_time or ordered)[0]


@pytest.mark.parametrize(("num_large", "chosen"), [(10, "small"), (80, "newest")])
def test_not_all_are_asked_before_one_goes_that_is_in_time_in_any_case(num_large, chosen):
    books, quick = Books(), measured(LateYields(SLO), *[0.1] * 8)
    for number in range(num_large):
        books.queue(sized(f"r{number}", 1.5, 9.0))
    for name, arrival_s in (("small", 9.05), ("newest", 9.85)):
        books.queue(sized(name, 0.1, arrival_s))
    assert first(books, 9.9, quick) == chosen


def test_slack_is_what_half_the_target_leaves_besides_the_own_work():
    work = text("r", 0.0)
    work.prefill_s = 0.3
    assert LateYields(SLO).slack_s(work) == 0.7
    work.prefill_s = 5.0
    assert LateYields(SLO).slack_s(work) == 0.0
    assert ArrivalQueueing().slack_s(work) == float("inf")


def test_nothing_waits_for_a_better_moment_in_strict_order_or_once_it_has_waited_longest():
    work = text("r", 0.0)
    assert ArrivalQueueing().is_due(work, 0.0)
    assert not LateYields(IMPATIENT).is_due(work, 29.9)
    assert LateYields(IMPATIENT).is_due(work, 30.0)
