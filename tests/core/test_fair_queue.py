"""Tenants take turns."""

import pytest

from core.fair_queue import FairQueue


def queue_of(*words: str) -> FairQueue[str]:
    """Each word waits for the tenant of its first letter."""
    queue: FairQueue[str] = FairQueue()
    for word in words:
        queue.push(word[0], word)
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_each_tenant_in_turn_and_within_one_in_order() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", "c1", "b2")
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not queue


def test_who_comes_new_waits_for_one_of_each_other_at_most() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", "b2")
    assert queue.pop() == "a1"
    queue.push("c", "c1")
    assert drained(queue) == ["b1", "a2", "c1", "b2", "a3"]


def test_who_goes_leaves_its_place() -> None:
    queue = queue_of("a1", "b1", "b2")
    queue.remove("a", "a1")
    queue.remove("b", "b1")
    assert (queue.of("a"), queue.of("b"), queue.everybody()) == ((), ("b2",), [("b", "b2")])
    assert drained(queue) == ["b2"]
    with pytest.raises(KeyError):
        queue.remove("b", "b2")
