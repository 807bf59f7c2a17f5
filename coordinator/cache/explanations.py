"""What recent requests found in caches: the facts from which `reasons` says why it was not more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coordinator.policy.prefixes import as_prefixes
from coordinator.policy.view import Placement
from coordinator.policy.warmth import Warmth
from coordinator.request import Request
from core.cache.scope import CacheScope

_NUM_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """One media item of the request, in the prompt's order."""

    field: str  # "messages[0].parts[1].image"
    known: tuple[str, ...]  # who had its embedding when the request was dispatched, as the index knew it
    encoder: str
    is_held: bool  # it was sent to an instance that should have had it
    is_skipped: bool  # it was not sent: the prefix that was found should have held it
    was_cached: bool = False  # it did not have to be encoded


@dataclass(frozen=True, slots=True)
class Explanation:
    """The newest dispatch of one request, and what came of it."""

    request_id: str
    tenant: str
    scope: CacheScope
    prompt_tokens: int
    known: Mapping[str, int]  # leading tokens of the prompt that instances had, as the index knew it
    prefill: str
    prefix: str | None  # whom prefill was to take tokens from; None: nobody
    prefix_tokens: int
    items: tuple[ItemFacts, ...] = ()
    num_attempts: int = 1
    cached_tokens: int | None = None  # of the prompt; None: its prefill has not ended
    has_ended: bool = False

    @property
    def known_at(self) -> str | None:
        """Who had most of it, of several the one that prefilled it; None: nobody had any."""
        return max(self.known, key=lambda name: (self.known[name], name == self.prefill), default=None)

    @property
    def known_tokens(self) -> int:
        return max(self.known.values(), default=0)


class Explanations:
    """Of the newest requests that were dispatched; told by the dispatcher."""

    def __init__(self, num_kept: int = _NUM_KEPT) -> None:
        self._num_kept = num_kept
        self._kept: dict[str, Explanation] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def note_dispatch(self, request: Request, warmth: Warmth, placement: Placement) -> None:
        """At every dispatch, with what the index said of it; a later one of the same request replaces it."""
        num_prompt = len(request.prompt)
        self._kept.pop(request.request_id, None)
        self._kept[request.request_id] = Explanation(
            request_id=request.request_id,
            tenant=request.tenant,
            scope=request.scope,
            prompt_tokens=num_prompt,
            known=as_prefixes(warmth.prefix_tokens).at_most(num_prompt),
            prefill=placement.prefill,
            prefix=placement.prefix,
            prefix_tokens=min(placement.prefix_tokens, num_prompt),
            items=_items(request, warmth, placement),
            num_attempts=request.num_attempts,
        )
        while len(self._kept) > self._num_kept:
            del self._kept[next(iter(self._kept))]

    def note_end(self, request: Request) -> None:
        """When a request has ended, however; more than once is no harm, the last one counts."""
        kept = self._kept.get(request.request_id)
        if kept is None:
            return
        cached = min(request.cached_tokens, kept.prompt_tokens) if request.is_prefilled else None
        items = tuple(
            replace(item, was_cached=index in request.cached_media) for index, item in enumerate(kept.items)
        )
        self._kept[request.request_id] = replace(kept, items=items, cached_tokens=cached, has_ended=True)

    def get(self, request_id: str) -> Explanation | None:
        """None if it is not among the newest, or was never dispatched."""
        return self._kept.get(request_id)


def _items(request: Request, warmth: Warmth, placement: Placement) -> tuple[ItemFacts, ...]:
    return tuple(
        ItemFacts(
            field=media.field,
            known=tuple(sorted(warmth.media[index])) if index < len(warmth.media) else (),
            encoder=placement.encode[index],
            is_held=index in placement.held,
            is_skipped=index in placement.skipped,
        )
        for index, media in enumerate(request.media)
    )
