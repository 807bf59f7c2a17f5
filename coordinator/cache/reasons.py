"""Why a request did not find more in the caches, in words."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.cache.explanations import Explanation, ItemFacts
from coordinator.policy.decisions import Decision
from core.cache.chain import GRANULE_TOKENS
from core.cache.scope import CacheScope


def reasons(facts: Explanation, dispatched: Decision | None = None) -> tuple[str, ...]:
    """One sentence each; none where it found all that could be found.

    dispatched: what was weighed when it was sent where it went; None: that is not known any more.
    """
    return tuple(_reasons(facts, dispatched))


def _reasons(facts: Explanation, dispatched: Decision | None) -> Iterator[str]:
    if facts.scope is CacheScope.NONE:
        yield "its scope is none: nothing is looked up or kept"
        return
    if facts.num_attempts > 1:
        yield f"it was dispatched {facts.num_attempts} times; this is about the last"
    yield from _unknown(facts)
    yield from _not_used(facts, dispatched)
    yield from _not_found(facts)
    for item in facts.items:
        yield from _of_item(item, facts)


def _unknown(facts: Explanation) -> Iterator[str]:
    """What no instance had when it was dispatched."""
    if facts.prompt_tokens <= GRANULE_TOKENS:
        yield f"it is no longer than {GRANULE_TOKENS} tokens, the least that is kept"
    elif not facts.known_tokens:
        yield (
            "no instance had its first block: it begins otherwise than all that is kept in its scope, "
            "or that was evicted"
        )
    elif facts.prompt_tokens - facts.known_tokens > GRANULE_TOKENS:
        yield (
            f"nobody had more than its first {facts.known_tokens} tokens: it goes on otherwise than all that "
            "is kept, or that was evicted"
        )


def _not_used(facts: Explanation, dispatched: Decision | None) -> Iterator[str]:
    """What was left where it was."""
    wanted = _wanted_tokens(facts)
    if facts.known_at is not None and wanted < facts.known_tokens:
        yield (
            f"the {facts.known_tokens} tokens on {facts.known_at} were not used: it went to {facts.prefill}, "
            f"which {_had(wanted)}{_weighed(dispatched)}"
        )


def _not_found(facts: Explanation) -> Iterator[str]:
    """What should have been there and was not."""
    wanted = min(_wanted_tokens(facts), facts.prompt_tokens - 1)  # the last is computed in any case
    if facts.cached_tokens is None:
        yield "it ended before its prefill did" if facts.has_ended else "its prefill has not ended yet"
    elif facts.cached_tokens + GRANULE_TOKENS <= wanted:
        where = facts.prefill if facts.prefix is None else facts.prefix
        fault = "it was evicted between dispatch and arrival"
        if facts.prefix not in (None, facts.prefill):
            fault += ", or fetching it failed or took too long"
        yield f"{wanted} tokens should have been on {where}, {facts.cached_tokens} were used: {fault}"


def _of_item(item: ItemFacts, facts: Explanation) -> Iterator[str]:
    if item.was_cached:
        return
    if item.is_skipped and facts.has_ended:
        yield f"{item.field}: the prefix that holds it was not there after all, so it was encoded"
    elif item.is_held and facts.has_ended:
        yield f"{item.field}: it was evicted on {item.encoder} between dispatch and arrival"
    elif not item.known:
        yield f"{item.field}: no instance had it: not seen before in its scope, or evicted"
    elif not item.is_held and not item.is_skipped:
        yield f"{item.field}: {', '.join(item.known)} had it, but it went to {item.encoder}"


def _wanted_tokens(facts: Explanation) -> int:
    """Leading tokens that the dispatch reckoned with."""
    return max(facts.known.get(facts.prefill, 0), facts.prefix_tokens)


def _weighed(dispatched: Decision | None) -> str:
    if dispatched is None or not dispatched.numbers:
        return ""
    return f" ({', '.join(f'{name} {value:.4g}' for name, value in dispatched.numbers.items())})"


def _had(num_tokens: int) -> str:
    return f"had {num_tokens}" if num_tokens else "had none"
