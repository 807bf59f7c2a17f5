from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import GROUPS, needed_stages
from coordinator.policy.routing import Routing
from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.driver import dispatched
from tests.coordinator.policy.test_dispatch import clusters, queued, works


def replicas():
    return make_scheduler("replicas", PROFILE, Slo(2.0, 0.1))


def names(placements):
    return [(each.request_id, each.prefill) for each in placements]


def test_the_fewest_in_flight_wins_then_the_first():
    books = queued(books_of(instance("b"), instance("a")), *(text(f"t{n}", n) for n in range(3)))
    assert names(dispatched(replicas(), books)) == [("t0", "b"), ("t1", "a"), ("t2", "b")]


def test_requests_count_and_their_tokens_do_not():
    books = queued(books_of(instance("a"), instance("b")), text("long", prompt=9000), text("short", 1.0))
    dispatched(replicas(), books)
    queued(books, pictures("third", 2.0, (3000,)), text("fourth", 3.0))
    assert names(dispatched(replicas(), books)) == [("third", "a"), ("fourth", "b")]


def test_blocks_are_promised_beyond_what_is_free():
    books = queued(books_of(instance("a", kv_blocks=10)), *(text(f"t{n}", n, 100, 100) for n in range(4)))
    assert len(dispatched(replicas(), books)) == 4
    assert books.instances["a"].free_kv_blocks < 0
    books.check_integrity()


def test_pictures_are_encoded_where_the_prompt_is():
    books = queued(books_of(instance("p", "pd"), instance("a")), pictures("r", sizes=(100, 200)))
    (placement,) = dispatched(replicas(), books)
    assert placement.encode == ("a", "a")
    assert placement.prefill == placement.decode == "a"


def test_a_closed_replica_gets_nothing():
    books = queued(books_of(instance("a"), instance("b")), text("t"))
    books.set_open("a", False)
    assert names(dispatched(replicas(), books)) == [("t", "b")]


def test_text_goes_on_where_pictures_find_nobody():
    books = queued(books_of(instance("a", "pd")), pictures("r"), text("t", 1.0))
    assert names(dispatched(replicas(), books)) == [("t", "a")]


def test_why_is_kept():
    scheduler, books = replicas(), queued(books_of(instance("a")), text("t"))
    dispatched(scheduler, books, now_s=3.0)
    (decision,) = scheduler.decisions.about("t")
    assert decision.numbers == {"waited_s": 3.0, "in_flight": 0.0}


@given(clusters, works)
def test_all_that_some_instance_serves_is_placed_in_order(cluster, waiting):
    books = books_of(*(instance(f"i{n}", *each) for n, each in enumerate(cluster)))
    queued(books, *waiting)
    order = {
        group: [work.request_id for work in books.waiting(group)] if _is_served(books, group) else []
        for group in GROUPS
    }
    placements = dispatched(Routing(DecisionRing()), books)
    books.check_integrity()
    for group in GROUPS:
        placed = [each for each in placements if books.running[each.request_id].group is group]
        assert [each.request_id for each in placed] == order[group]
        for each in placed:
            (name,) = each.instance_ids
            assert books.instances[name].serves(group)
            assert books.instances[name].roles >= needed_stages(group)


def _is_served(books, group):
    return any(each.serves(group) and each.roles >= needed_stages(group) for each in books.instances.values())


@given(works, st.integers(1, 8))
def test_replicas_have_equally_many_in_flight(waiting, count):
    books = queued(books_of(*(instance(f"i{n}") for n in range(count))), *waiting)
    dispatched(replicas(), books)
    in_flight = [book.load.sequences for book in books.instances.values()]
    assert sum(in_flight) == len(waiting)
    assert max(in_flight) - min(in_flight) <= 1
