"""What dispatch tells instances of caches, and what happens where a cache has not what it should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.stage_messages import (
    CancelCommand,
    EncodeCommand,
    FailureReport,
    PrefillCommand,
)
from core.lifecycle import RequestState
from core.stages import Stage
from tests.coordinator.hinted import (
    HALF,
    HELD,
    KEYS,
    SKIPPED,
    USE,
    Scene,
    encodes,
    make_request,
    placed,
)


async def test_without_hints_all_is_done_and_may_be_kept() -> None:
    scene = Scene(placed())
    (prefill,) = scene.sent("p0", PrefillCommand)
    assert (prefill.prefix, prefill.prefix_tokens, prefill.sequence.cache) == (None, 0, USE)
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([0], [1])
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    scene.done("p0", Stage.PREFILL)
    usage = (await scene.finish()).usage
    assert (usage.cached_tokens, usage.cached_media) == (0, 0)


async def test_a_holder_is_asked_for_its_embedding_whatever_it_plays() -> None:
    scene = Scene(replace(HELD, encode=("d0", "e1")))
    assert (encodes(scene, "d0"), encodes(scene, "e0"), encodes(scene, "e1")) == ([0], [], [1])
    scene.done("d0", Stage.ENCODE, 0, cached_tokens=4)
    scene.done("e1", Stage.ENCODE, 1)
    assert scene.request.state is RequestState.PREFILLING
    scene.done("p0", Stage.PREFILL)
    assert (await scene.finish()).usage.cached_media == 1


async def test_an_embedding_that_was_gone_is_not_counted() -> None:
    scene = Scene(HELD)
    scene.done("h0", Stage.ENCODE, 0)
    scene.done("e1", Stage.ENCODE, 1)
    scene.done("p0", Stage.PREFILL)
    assert (await scene.finish()).usage.cached_media == 0


async def test_what_the_prefix_holds_is_not_encoded() -> None:
    scene = Scene(SKIPPED)
    assert scene.request.state is RequestState.PREFILLING
    (prefill,) = scene.sent("p0", PrefillCommand)
    assert prefill.prefix == scene.instance("h0").peer
    assert prefill.prefix_tokens == 48
    assert not any(encodes(scene, name) for name in ("e0", "e1", "h0"))
    assert not any(scene.dispatcher.books.instances[name].load.encode_items for name in ("e0", "e1", "h0"))
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    usage = (await scene.finish()).usage
    assert (usage.cached_tokens, usage.cached_media) == (48, 2)


async def test_a_prefix_of_its_own_is_named_to_the_prefill_instance() -> None:
    scene = Scene(HALF)
    assert scene.request.state is RequestState.ENCODING
    (prefill,) = scene.sent("p0", PrefillCommand)
    assert prefill.prefix == scene.instance("p0").peer
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([], [1])
    scene.done("e1", Stage.ENCODE, 1)
    assert scene.request.state is RequestState.PREFILLING
    scene.done("p0", Stage.PREFILL, cached_tokens=16)
    assert (await scene.finish()).usage.cached_media == 1


async def test_what_a_prefill_needs_after_all_is_encoded() -> None:
    scene = Scene(SKIPPED)
    scene.need(1)
    assert scene.request.state is RequestState.ENCODING
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([], [1])
    assert scene.dispatcher.books.instances["e1"].load.encode_items == 1
    scene.need(0, 1)  # said again, with one more
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([0], [])
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    assert scene.request.state is RequestState.PREFILLING
    assert scene.dispatcher.books.instances["e1"].load.encode_items == 0
    scene.done("p0", Stage.PREFILL)
    usage = (await scene.finish()).usage
    assert (usage.cached_tokens, usage.cached_media) == (0, 0)


async def test_books_no_longer_count_on_a_prefix_that_is_not_there() -> None:
    scene = Scene(SKIPPED)
    scene.need(1)
    assert scene.request.placement is not None
    assert scene.request.placement.prefix_tokens == 28  # where the needed item begins
    assert scene.request.placement.skipped == {0}


async def test_needs_that_do_not_count() -> None:
    scene = Scene(HALF)
    encodes(scene, "e1")
    scene.need(1)  # is being encoded
    scene.need(0, attempt=scene.request.attempt + 1)
    scene.need(0, name="e0")  # does not prefill it
    assert scene.request.placement == HALF
    scene.done("e1", Stage.ENCODE, 1)
    scene.done("p0", Stage.PREFILL, cached_tokens=16)
    scene.token("p0")
    scene.need(0)  # after its first token
    assert not any(encodes(scene, name) for name in ("e0", "e1"))
    await scene.finish()
    scene.need(0)  # after its end


async def test_an_encoder_that_is_gone_when_it_is_needed() -> None:
    scene = Scene(SKIPPED)
    scene.lose("e0")
    assert scene.request.num_attempts == 1
    scene.need(0)
    assert encodes(scene, "p0") == [0]
    assert scene.request.needs("p0")
    scene.done("p0", Stage.ENCODE, 0)
    scene.done("p0", Stage.PREFILL)
    assert (await scene.finish()).usage.cached_media == 1


async def test_a_holder_that_dies_before_it_delivered() -> None:
    scene = Scene(HELD, placed())
    assert scene.request.needs("h0")
    scene.lose("h0")
    assert scene.request.num_attempts == 2
    assert encodes(scene, "e0") == [0]
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    scene.done("p0", Stage.PREFILL)
    assert (await scene.finish()).usage.cached_media == 0


async def test_a_holder_that_dies_once_it_delivered() -> None:
    scene = Scene(HELD)
    scene.done("h0", Stage.ENCODE, 0, cached_tokens=4)
    scene.lose("h0")
    assert scene.request.num_attempts == 1
    scene.done("e1", Stage.ENCODE, 1)
    scene.done("p0", Stage.PREFILL)
    assert (await scene.finish()).usage.cached_media == 1


async def test_an_embedding_that_comes_too_late_to_be_needed() -> None:
    """The prefill instance had more than it was known to have."""
    scene = Scene(HELD)
    scene.done("p0", Stage.PREFILL, cached_tokens=96)
    scene.token("p0")
    scene.lose("h0")
    failure = FailureReport("r", scene.request.attempt, Stage.ENCODE, 1, 14, "p0: the request has ended here")
    scene.dispatcher.take_failure(scene.instance("e1"), failure)
    assert scene.request.num_attempts == 1
    assert scene.request.has_all_reports
    assert not any(scene.warmth.under_way.holders(key) for key in KEYS.embeddings if key)
    assert scene.dispatcher.books.instances["e1"].load.encode_items == 0
    assert (await scene.finish()).usage.cached_tokens == 96


@pytest.mark.parametrize("decode", ["d0", "p0"])
async def test_an_encoder_hears_of_the_end_before_the_coordinator_does(decode: str) -> None:
    """It says so first, then the prefill instance shows its first token."""
    scene = Scene(replace(HELD, decode=decode))
    for index, name in enumerate(("h0", "e1")):
        scene.refused(name, index)
    assert (scene.request.num_attempts, scene.request.state) == (1, RequestState.PREFILLING)
    assert scene.dispatcher.books.instances["e1"].load.encode_items == 0
    scene.done("p0", Stage.PREFILL, cached_tokens=96)
    assert (await scene.finish()).usage.cached_tokens == 96


async def test_a_prefill_that_ended_badly_says_so_itself() -> None:
    scene = Scene(HELD, placed())
    scene.refused("e1", 1)
    failure = FailureReport("r", scene.request.attempt, Stage.PREFILL, 0, 14, "its peer is gone")
    scene.dispatcher.take_failure(scene.instance("p0"), failure)
    assert (scene.request.num_attempts, scene.request.state) == (1, RequestState.QUEUED)


async def test_the_source_of_the_prefix_may_die_and_is_told_nothing() -> None:
    scene = Scene(SKIPPED)
    assert not scene.request.needs("h0")
    assert scene.dispatcher.requests_by_instance()["h0"] == 0
    scene.lose("h0")
    assert scene.request.num_attempts == 1
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    await scene.finish()


async def test_a_source_that_is_gone_at_dispatch_is_not_named() -> None:
    scene = Scene()
    scene.lose("h0")
    scene.script.placements = [SKIPPED]
    scene.dispatcher.tick()
    (prefill,) = scene.sent("p0", PrefillCommand)
    assert (prefill.prefix, prefill.prefix_tokens) == (None, 48)


async def test_the_second_dispatch_has_hints_of_its_own() -> None:
    scene = Scene(SKIPPED, replace(HALF, decode="h0"))
    scene.sent("p0", PrefillCommand)
    first = scene.request.attempt
    scene.lose("d0")
    scene.need(1, attempt=first)
    (prefill,) = scene.sent("p0", PrefillCommand)
    assert (prefill.prefix, prefill.prefix_tokens) == (scene.instance("p0").peer, 16)
    assert prefill.sequence.attempt == scene.request.attempt
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([], [1])
    assert scene.request.cached_media == {0}


async def test_what_is_counted_is_of_the_dispatch_that_made_the_first_token() -> None:
    scene = Scene(SKIPPED, placed(decode="h0"))
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    scene.token("p0")
    scene.lose("d0")
    assert scene.request.num_attempts == 2
    scene.done("e0", Stage.ENCODE, 0, cached_tokens=4)
    scene.done("e1", Stage.ENCODE, 1)
    scene.done("p0", Stage.PREFILL, cached_tokens=96)
    assert (scene.request.cached_tokens, scene.request.cached_media) == (48, {0, 1})


async def test_what_came_to_nothing_is_not_counted() -> None:
    scene = Scene(SKIPPED, placed(decode="h0"))
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    scene.lose("d0")
    assert scene.request.num_attempts == 2
    assert (scene.request.cached_tokens, scene.request.cached_media) == (0, set())


async def test_a_need_in_the_second_dispatch_leaves_the_count_of_the_first() -> None:
    scene = Scene(SKIPPED, replace(SKIPPED, decode="h0"))
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    scene.token("p0")
    scene.lose("d0")
    scene.need(0, 1)
    assert scene.request.state is RequestState.ENCODING
    assert scene.request.cached_media == {0, 1}


async def test_an_answer_makes_the_chain_longer_for_the_next_dispatch() -> None:
    scene = Scene(placed())
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    scene.done("p0", Stage.PREFILL)
    scene.token("p0")
    for _ in range(14):
        scene.token("d0")
    assert scene.request.keys is not None
    assert len(scene.request.keys.chain) == 6
    scene.lose("d0")
    assert len(scene.request.keys.chain) == 7  # 100 tokens and 15


@pytest.mark.parametrize("placement", [HELD, SKIPPED, HALF])
async def test_a_cancel_tells_all_that_were_told(placement: object) -> None:
    scene = Scene(placement)
    told = {name for name in ("e0", "e1", "h0") if encodes(scene, name)}
    scene.dispatcher.cancel(scene.request)
    cancelled = {name for name in ("e0", "e1", "h0") if scene.sent(name, CancelCommand)}
    assert told <= cancelled
    scene.check_idle()


async def test_who_encodes_is_about_to_have_it_until_the_end() -> None:
    scene = Scene(placed())
    under_way = scene.warmth.under_way
    first, second = KEYS.embeddings
    assert first is not None
    assert second is not None
    assert (under_way.holders(first), under_way.holders(second)) == (("e0",), ("e1",))
    scene.done("e0", Stage.ENCODE, 0)
    scene.dispatcher.cancel(scene.request)
    assert (under_way.holders(first), under_way.holders(second)) == (("e0",), ())
    scene.dispatcher.note_heartbeat(scene.instance("e0"))
    assert under_way.holders(first) == ()


async def test_nobody_is_about_to_have_what_may_not_be_kept() -> None:
    request = make_request()
    request.cache = request.keys = None
    scene = Scene(placed(), request=request)
    (encode,) = scene.sent("e0", EncodeCommand)
    assert encode.cache is None
    assert KEYS.embeddings[0] is not None
    assert scene.warmth.under_way.holders(KEYS.embeddings[0]) == ()


def test_nothing_beyond_the_prefix_can_be_skipped() -> None:
    with pytest.raises(AssertionError, match="skipped beyond the prefix"):
        Scene(placed(skipped=frozenset({1}), prefix="p0", prefix_tokens=30))
