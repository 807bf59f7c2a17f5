from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from tests.coordinator.policy.cluster import PROFILE, applied, books_of, instance


def test_a_plan_is_made_anew_where_an_instance_came_or_was_pinned():
    scheduler, books = make_scheduler("coupled", PROFILE, Slo(1.0, 0.1)), books_of(instance("a", "e"))
    first = scheduler.plan(books, 0.0)
    applied(books, dict(first.wanted))
    assert scheduler.plan(books, 1.0) is first
    books.add_instance(instance("b", "d"))
    assert scheduler.plan(books, 2.0).wanted.keys() == {"a", "b"}
    books.instances["b"].is_pinned = True
    assert scheduler.plan(books, 3.0).wanted["b"].roles == books.instances["b"].roles
    books.instances["b"].is_pinned = False
    assert scheduler.plan(books, 4.0).wanted["b"] == first.wanted["a"]
