"""How tokens read, as far as the coordinator was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from coordinator.events import TokensEvent
from coordinator.openai.token_texts import TokenTexts

_MAX_ASKED = 2048  # of one question

Ask = Callable[[list[int]], Awaitable[Iterable[bytes]]]  # one per id, in order


class TokenStore:
    """`learn` before an event is handed on that `texts` will be asked about."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self.texts = TokenTexts(self._known.__getitem__)

    async def learn(self, event: TokensEvent, ask: Ask) -> None:
        """Asks for what is not known of an event with log probabilities."""
        missing = sorted(_shown(event) - self._known.keys())
        for start in range(0, len(missing), _MAX_ASKED):
            ids = missing[start : start + _MAX_ASKED]
            self._known.update(zip(ids, await ask(ids), strict=True))


def _shown(event: TokensEvent) -> set[int]:
    if not event.logprobs:
        return set()
    return set(event.token_ids).union(*({token_id for token_id, _ in each.top} for each in event.logprobs))
