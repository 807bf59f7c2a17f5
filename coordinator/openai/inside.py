"""The HTTP door in the coordinator's own process: calls go straight to its door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from coordinator.access.guard import Guard
from coordinator.access.principal import Principal, Right
from coordinator.calls import GenerateCall
from coordinator.events import Emit
from coordinator.openai.choices import Generate
from coordinator.openai.served import Visit
from coordinator.openai.token_texts import TokenTexts
from coordinator.state import ServedDescription


@dataclass(frozen=True, slots=True)
class Inside:
    """`enter` is a `served.Enter`."""

    door: Generate
    describe: Callable[[], ServedDescription]
    guard: Guard
    texts: TokenTexts

    async def enter(self, authorization: str | None, peer: str) -> Visit:
        caller = self.guard.authenticate(authorization, Right.INFER, peer)
        return Visit(self.describe(), self.texts, partial(self._generate, caller))

    async def is_open(self) -> bool:
        return self.guard.is_open

    async def _generate(self, caller: Principal, call: GenerateCall, emit: Emit) -> None:
        await self.door(replace(call, principal=caller), emit)
