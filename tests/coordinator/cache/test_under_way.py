"""Who is told to encode an item is about to have it."""

from __future__ import annotations

from coordinator.cache.under_way import EmbeddingsUnderWay

KEY, OTHER = b"k" * 32, b"o" * 32


def begun() -> EmbeddingsUnderWay:
    under_way = EmbeddingsUnderWay()
    under_way.begin("r", 0, KEY, "e0")
    return under_way


def test_from_the_command_until_the_heartbeat_after_it_is_done() -> None:
    under_way = begun()
    assert under_way.holders(KEY) == ("e0",)
    assert under_way.holders(OTHER) == ()
    under_way.settle("e0")  # it is not done
    under_way.done("r", 0)
    under_way.settle("e1")
    assert under_way.holders(KEY) == ("e0",)
    under_way.settle("e0")
    assert under_way.holders(KEY) == ()
    under_way.check_idle()


def test_the_end_of_the_request_before_it_is_done() -> None:
    under_way = begun()
    under_way.end("r")
    under_way.end("r")
    assert under_way.holders(KEY) == ()
    under_way.done("r", 0)
    under_way.check_idle()


def test_what_is_done_outlives_its_request() -> None:
    under_way = begun()
    under_way.done("r", 0)
    under_way.end("r")
    assert under_way.holders(KEY) == ("e0",)
    under_way.check_idle()


def test_two_requests_for_the_same_picture() -> None:
    under_way = begun()
    under_way.begin("other", 3, KEY, "e0")
    under_way.end("r")
    assert under_way.holders(KEY) == ("e0",)
    under_way.end("other")
    assert under_way.holders(KEY) == ()


def test_a_lost_instance_has_nothing_done_or_not() -> None:
    under_way = begun()
    under_way.begin("r", 1, KEY, "e1")
    under_way.begin("other", 0, OTHER, "e0")
    under_way.done("other", 0)
    under_way.lose("e0")
    assert (under_way.holders(KEY), under_way.holders(OTHER)) == (("e1",), ())
    under_way.done("r", 0)
    under_way.settle("e0")
    assert under_way.holders(KEY) == ("e1",)


def test_a_second_order_replaces_the_first() -> None:
    under_way = begun()
    under_way.begin("r", 0, KEY, "e1")
    assert under_way.holders(KEY) == ("e1",)
    under_way.end("r")
    under_way.check_idle()


def test_every_change_has_a_version_of_its_own() -> None:
    under_way = begun()
    before = under_way.version
    under_way.done("r", 0)
    assert under_way.version == before  # the answer is the same
    under_way.settle("e0")
    assert under_way.version > before
