"""What dispatch is told of a request's keys."""

from __future__ import annotations

import asyncio

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.request_keys import RequestKeys, make_keys
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.warmth import COLD
from coordinator.stage_messages import CacheReport
from core.clock import ManualClock
from core.sequence import CacheUse, MediaSpan
from core.stages import COUPLED, ModalityGroup
from tests.coordinator.wire.test_stages import info

SPAN = MediaSpan(0, 20, 4, (1, 4, 4), b"d" * 32, b"i" * 32)
KEYS = asyncio.run(make_keys("model", CacheUse(b"s" * 32, "t"), tuple(range(100)), (SPAN,)))
(PICTURE,) = KEYS.embeddings
assert PICTURE is not None


class Scene:
    """Two attached instances and one request."""

    def __init__(self, keys: RequestKeys | None = KEYS) -> None:
        self.cache, self.books = ClusterCache(), Books()
        self.clock = ManualClock()
        self.warmth = RequestWarmth(self.cache, EmbeddingsUnderWay(), self.books, self.clock)
        for name in ("a", "b"):
            self.cache.attach(info(instance_id=name, epoch=1))
            self.books.add_instance(InstanceBook(name, COUPLED, ModalityGroup.SHARED, 16, 100))
        self.warmth.enter("r", keys)

    def store(self, name: str, *keys: bytes) -> None:
        self.cache.update(name, 1, CacheReport(keys))


def test_tokens_by_instance_and_holders_by_item() -> None:
    scene = Scene()
    scene.store("a", *KEYS.chain[:4])
    scene.store("b", PICTURE)
    warmth = scene.warmth.of_request("r")
    assert warmth.prefix_tokens == {"a": 64}
    assert warmth.media == (frozenset({"b"}),)


def test_who_encodes_an_item_is_about_to_have_it() -> None:
    scene = Scene()
    scene.warmth.under_way.begin("other", 0, PICTURE, "a")
    assert scene.warmth.of_request("r").media == (frozenset({"a"}),)
    scene.warmth.under_way.end("other")
    scene.clock.advance(1.0)
    assert scene.warmth.of_request("r").media == (frozenset(),)


def test_instances_that_take_no_work_are_left_out() -> None:
    scene = Scene()
    for name in ("a", "b"):
        scene.store(name, *KEYS.chain, PICTURE)
    scene.books.set_open("a", False)
    assert scene.warmth.of_request("r").prefix_tokens == {"b": 96}
    scene.books.remove_instance("b")
    warmth = scene.warmth.of_request("r")
    assert (warmth.prefix_tokens, warmth.media) == ({}, (frozenset(),))
    scene.books.set_open("a", True)
    assert scene.warmth.of_request("r").media == (frozenset({"a"}),)


def test_an_answer_stands_for_a_moment_and_while_nothing_changes() -> None:
    scene = Scene()
    scene.store("a", *KEYS.chain)
    first = scene.warmth.of_request("r")
    scene.store("b", *KEYS.chain)
    assert scene.warmth.of_request("r") is first
    scene.clock.advance(1.0)
    second = scene.warmth.of_request("r")
    scene.clock.advance(1.0)
    assert scene.warmth.of_request("r") is second
    assert scene.warmth.of_request("r").prefix_tokens == {"a": 96, "b": 96}


def test_who_is_gone_is_in_no_answer_at_once() -> None:
    scene = Scene()
    scene.store("a", *KEYS.chain)
    assert scene.warmth.of_request("r").prefix_tokens == {"a": 96}
    scene.cache.detach("a")
    assert scene.warmth.of_request("r").prefix_tokens == {}


def test_a_request_without_keys_is_cold() -> None:
    scene = Scene(None)
    assert scene.warmth.of_request("r") is COLD
    scene.warmth.leave("r")
    scene.warmth.check_idle()


def test_new_keys_replace_the_old_ones() -> None:
    scene = Scene()
    longer = KEYS.extended(tuple(range(200)), (SPAN,))
    scene.store("a", *longer.chain)
    assert scene.warmth.of_request("r").prefix_tokens == {"a": 96}
    scene.warmth.enter("r", longer)
    assert scene.warmth.of_request("r").prefix_tokens == {"a": 192}


def test_who_looks_on_sees_what_was_answered_and_leaves_nothing_behind() -> None:
    scene = Scene()
    scene.store("a", *KEYS.chain[:4])
    assert scene.warmth.standing("r").prefix_tokens == {"a": 64}
    scene.store("a", *KEYS.chain[:5])
    assert scene.warmth.of_request("r").prefix_tokens == {"a": 80}
    scene.store("a", *KEYS.chain)
    scene.clock.advance(1.0)
    assert scene.warmth.standing("r").prefix_tokens == {"a": 80}
    assert scene.warmth.standing("unknown") is COLD
    scene.warmth.leave("r")
    scene.warmth.check_idle()
