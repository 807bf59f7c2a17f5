"""What is remembered of requests, and what is said of why they found no more."""

from __future__ import annotations

from coordinator.cache.explanations import Explanation, Explanations
from coordinator.cache.reasons import reasons
from coordinator.policy.view import Placement
from coordinator.policy.warmth import COLD, Warmth
from coordinator.request import PlacedMedia, Request
from coordinator.stage_messages import MediaItem
from core.cache.scope import CacheScope
from core.sequence import MediaSpan
from tests.coordinator.test_request import make_request

ITEM = MediaItem(b"d" * 32, 1, 28, 28, "image/png", "", "", "")
FIELDS = ("messages[0].parts[0].image", "messages[0].parts[1].image")


def asked(num_prompt: int = 100, num_media: int = 0, **fields: object) -> Request:
    request = make_request()
    request.prompt = (1,) * num_prompt
    spans = [MediaSpan(n, 4 * n, 4, (1, 4, 4), b"d" * 32) for n in range(num_media)]
    request.media = tuple(PlacedMedia(ITEM, span, FIELDS[span.item_index]) for span in spans)
    request.num_attempts = 1
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def explained(
    request: Request,
    warmth: Warmth = COLD,
    *,
    cached: int | None = 0,
    cached_media: tuple[int, ...] = (),
    **placed: object,
) -> Explanation:
    """After its dispatch and its end; `cached` None: it ended before its prefill did."""
    encode = ("e0",) * len(request.media)
    placement = Placement("r", encode, "p1", "d0", 0.0, **placed)
    kept = Explanations()
    kept.note_dispatch(request, warmth, placement)
    if cached is not None:
        request.is_prefilled, request.cached_tokens = True, cached
    request.cached_media |= set(cached_media)
    kept.note_end(request)
    found = kept.get(request.request_id)
    assert found is not None
    return found


def said(facts: Explanation) -> str:
    return "\n".join(reasons(facts))


def test_a_prompt_that_nobody_knows() -> None:
    facts = explained(asked())
    assert (facts.known_tokens, facts.known_at, facts.cached_tokens) == (0, None, 0)
    assert "no instance had its first block" in said(facts)


def test_a_prompt_of_one_block_is_too_short_to_be_kept() -> None:
    assert "no longer than 16 tokens" in said(explained(asked(16)))
    assert "no longer than" not in said(explained(asked(17)))


def test_scope_none_says_only_that() -> None:
    assert len(reasons(explained(asked(num_media=1, scope=CacheScope.NONE)))) == 1
    assert "scope is none" in said(explained(asked(scope=CacheScope.NONE)))


def test_a_full_hit_needs_no_reason() -> None:
    facts = explained(asked(), Warmth({"p0": 96, "p1": 96}), cached=96)
    assert (facts.known_at, facts.known_tokens, facts.cached_tokens) == ("p1", 96, 96)
    assert reasons(facts) == ()


def test_a_prompt_that_goes_on_otherwise() -> None:
    facts = explained(asked(), Warmth({"p1": 48}), cached=48)
    (reason,) = reasons(facts)
    assert "nobody had more than its first 48 tokens" in reason


def test_a_prefix_that_was_left_where_it_was() -> None:
    (reason,) = reasons(explained(asked(), Warmth({"p0": 96, "p1": 16}), cached=16))
    assert "the 96 tokens on p0 were not used: it went to p1, which had 16" in reason


def test_a_prefix_that_was_fetched_needs_no_reason() -> None:
    assert not reasons(explained(asked(), Warmth({"p0": 96}), cached=96, prefix="p0", prefix_tokens=96))


def test_a_prefix_that_was_gone() -> None:
    facts = explained(asked(), Warmth({"p1": 96}), cached=16)
    assert said(facts) == (
        "96 tokens should have been on p1, 16 were used: it was evicted between dispatch and arrival"
    )
    fetched = explained(asked(), Warmth({"p0": 96}), cached=0, prefix="p0", prefix_tokens=96)
    assert "should have been on p0, 0 were used" in said(fetched)
    assert "fetching it failed" in said(fetched)


def test_items() -> None:
    warmth = Warmth({}, (frozenset({"e0"}), frozenset()))
    facts = explained(asked(num_media=2), warmth, cached_media=(0,), held=frozenset({0}))
    assert [(item.was_cached, item.known) for item in facts.items] == [(True, ("e0",)), (False, ())]
    assert f"{FIELDS[1]}: no instance had it" in said(facts)
    assert FIELDS[0] not in said(facts)


def test_items_that_were_gone() -> None:
    warmth = Warmth({}, (frozenset({"e0"}),))
    held = explained(asked(num_media=1), warmth, held=frozenset({0}))
    assert f"{FIELDS[0]}: it was evicted on e0 between dispatch and arrival" in said(held)
    skipped = explained(asked(num_media=1), warmth, skipped=frozenset({0}))
    assert f"{FIELDS[0]}: the prefix that holds it was not there after all" in said(skipped)
    elsewhere = explained(asked(num_media=1), Warmth({}, (frozenset({"e7", "e8"}),)))
    assert f"{FIELDS[0]}: e7, e8 had it, but it went to e0" in said(elsewhere)


def test_what_has_not_ended_or_ended_early() -> None:
    kept = Explanations()
    kept.note_dispatch(asked(), COLD, Placement("r", (), "p1", "d0", 0.0))
    running = kept.get("r")
    assert running is not None
    assert "its prefill has not ended yet" in said(running)
    assert "ended before its prefill did" in said(explained(asked(), cached=None))


def test_a_second_dispatch_replaces_the_first() -> None:
    facts = explained(asked(num_attempts=2), Warmth({"p1": 500}), cached=500)
    assert "dispatched 2 times" in said(facts)
    assert (facts.known_tokens, facts.cached_tokens) == (100, 100)  # of the prompt only


def test_the_oldest_are_forgotten() -> None:
    kept = Explanations(num_kept=2)
    for name in ("a", "b", "a", "c"):
        kept.note_dispatch(asked(request_id=name), COLD, Placement(name, (), "p1", "d0", 0.0))
    kept.note_end(asked(request_id="b"))
    assert (len(kept), kept.get("b")) == (2, None)
    assert kept.get("a") is not None
