from __future__ import annotations

from dataclasses import replace

from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from coordinator.policy.worth_moving import worth_moving
from core.costs import MoveCosts
from core.stages import parse_roles
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, text
from tests.coordinator.policy.driver import apply

# A step of a few sequences takes 10 ms, the KV of one some 4 ms or, over a slow link, three seconds.
QUICK = CostModel(PROFILE)
SLOW = CostModel(replace(PROFILE, kv_move=MoveCosts(3.0, 1e9)))


def decoding(books: Books, name: str, at: str, outputs: int) -> Work:
    books.queue(text(name))
    work = apply(books, Placement(name, (), "a", at, 0.0))
    work.is_prefilled = work.is_handed_over = True
    work.num_outputs = outputs
    books.note(work)
    return work


def found(costs: CostModel, given_up: str) -> list[str]:
    """Of one sequence on "b" and two on "a": one with 99 of 100 tokens to come, one that is all but done."""
    books = books_of(instance("a"), instance("b"))
    for name, at, outputs in (("new", "a", 1), ("old", "a", 100), ("other", "b", 1)):
        decoding(books, name, at, outputs)
    return [work.request_id for work in worth_moving(books, "a", parse_roles(given_up), costs)]


def test_those_that_take_longer_to_end_than_to_move() -> None:
    assert found(QUICK, "d") == ["new", "old"]
    assert found(SLOW, "d") == []


def test_what_is_all_but_done_stays() -> None:
    between = CostModel(replace(PROFILE, kv_move=MoveCosts(0.5, 1e12)))
    assert found(between, "d") == ["new"]


def test_nothing_leaves_an_instance_that_decodes_on() -> None:
    assert found(QUICK, "ep") == []


def test_all_leave_an_instance_that_gives_up_every_stage() -> None:
    assert found(SLOW, "epd") == ["new", "old"]
