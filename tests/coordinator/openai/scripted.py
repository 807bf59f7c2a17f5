"""The HTTP door before a script: what it asks for is kept, and it gets what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from coordinator.access.hosts import HostNames
from coordinator.calls import GenerateCall
from coordinator.door import Emit
from coordinator.errors import UnauthenticatedError
from coordinator.events import AcceptedEvent, FinishedEvent, TokensEvent, Usage
from coordinator.openai.app import make_app
from coordinator.openai.served import Served, Visit
from coordinator.openai.token_texts import TokenTexts
from coordinator.prompt.token_bytes import token_bytes
from coordinator.state import ServedDescription
from core.sequence import FinishReason, TokenLogprobs

MESSAGES = [{"role": "user", "content": "hi"}]


class Letters:
    """A tokenizer whose tokens are bytes."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode(errors="replace")

    def piece(self, token_id: int) -> str:
        """As byte-level vocabularies write it, for bytes that stand for themselves."""
        return chr(token_id)


@dataclass
class Script:
    """Each call gets these texts, then the error or the end."""

    texts: Sequence[str] = ("an", " answer")
    error: Exception | None = None
    is_accepted: bool = True
    reason: FinishReason = FinishReason.STOP
    is_ready: bool = True
    message_bytes: int = 30_000
    stalled_s: float = 5.0
    calls: list[GenerateCall] = field(default_factory=list)
    hold: asyncio.Event | None = None  # the end waits for it
    num_cancelled: int = 0
    key: str | None = None  # that callers must have
    hosts: HostNames | None = None
    asked: list[tuple[str | None, str]] = field(default_factory=list)  # who called from where

    async def generate(self, call: GenerateCall, emit: Emit) -> None:
        self.calls.append(call)
        try:
            await self._play(call, emit)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    async def _play(self, call: GenerateCall, emit: Emit) -> None:
        if self.is_accepted:
            await emit(AcceptedEvent(call.request_id, "m", 7, 10))
            index = 0
            for text in self.texts:
                tokens = tuple(text.encode())
                shown = () if call.sampling.logprobs is None else (_logprobs(call),) * len(tokens)
                await emit(TokensEvent(index, tokens, text, shown))
                index += len(tokens)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        await emit(FinishedEvent(self.reason, "", Usage(10, 1, 0, 4), ()))

    async def enter(self, header: str | None, peer: str) -> Visit:
        self.asked.append((header, peer))
        if self.key is not None and header != f"Bearer {self.key}":
            raise UnauthenticatedError("this call needs an API key")
        return Visit(self.describe(), TokenTexts(partial(token_bytes, Letters())), self.generate)

    async def is_open(self) -> bool:
        return self.key is None

    def describe(self) -> ServedDescription:
        return ServedDescription("org/m", "", 100, self.message_bytes, 1, 1, 1, 1.0)

    def app(self) -> Any:
        return make_app(
            Served(
                enter=self.enter,
                is_ready=lambda: self.is_ready,
                is_open=self.is_open,
                version="1.2",
                stalled_s=self.stalled_s,
            ),
            hosts=self.hosts,
        )

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app()), base_url="http://door")

    async def chat(self, **fields: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.post("/v1/chat/completions", json={"messages": MESSAGES} | fields)

    async def complete(self, **fields: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.post("/v1/completions", json={"prompt": "hi"} | fields)


def _logprobs(call: GenerateCall) -> TokenLogprobs:
    top = ((ord("x"), -0.25), (0xE2, float("-inf")))
    return TokenLogprobs(-0.5, top[: call.sampling.logprobs])
