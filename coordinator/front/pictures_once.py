"""The choices of one HTTP call bring the same pictures: the first sends their bytes, the others name them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from dataclasses import replace

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ImageSource
from coordinator.errors import NotFoundError, ServiceError
from coordinator.events import Emit, Event
from coordinator.openai.choices import Generate

Messages = tuple[ChatMessage, ...]


class PicturesOnce:
    """Of one HTTP call. `generate` is a `choices.Generate`.

    A call that was accepted has its pictures in the media store, where its tenant finds them by digest. So
    the others wait for that; what the first is refused for, they would be, too. Where the store has let go of
    a picture meanwhile, its bytes are sent after all.
    """

    def __init__(self, generate: Generate) -> None:
        self._generate = generate
        self._first: asyncio.Future[None] | None = None  # done once it was accepted, or was not
        self._named: asyncio.Task[Messages] | None = None  # all choices have the same messages

    async def generate(self, call: GenerateCall, emit: Emit) -> None:
        if not has_bytes(call.messages):
            await self._generate(call, emit)
        elif self._first is None:
            self._first = asyncio.get_running_loop().create_future()
            await self._bring(call, emit, self._first)
        else:
            await self._name(call, emit, self._first)

    async def _bring(self, call: GenerateCall, emit: Emit, accepted: asyncio.Future[None]) -> None:
        def note(event: Event) -> Awaitable[None]:
            if not accepted.done():
                accepted.set_result(None)
            return emit(event)

        try:
            await self._generate(call, note)
        except ServiceError as error:
            if not accepted.done():
                accepted.set_exception(error)
                accepted.exception()  # there may be nobody who waits
            raise
        finally:
            accepted.cancel()

    async def _name(self, call: GenerateCall, emit: Emit, accepted: asyncio.Future[None]) -> None:
        await asyncio.shield(accepted)
        if self._named is None:
            self._named = asyncio.create_task(asyncio.to_thread(named_by_digest, call.messages))
        messages = await asyncio.shield(self._named)
        try:
            await self._generate(replace(call, messages=messages), emit)
        except NotFoundError as error:
            if not error.field.endswith(".digest"):
                raise
            await self._generate(call, emit)


def has_bytes(messages: Messages) -> bool:
    return any(part.image and part.image.data for message in messages for part in message.parts)


def named_by_digest(messages: Messages) -> Messages:
    """The same pictures, without a byte of them; hashes them all."""
    return tuple(replace(each, parts=tuple(map(_part_by_digest, each.parts))) for each in messages)


def _part_by_digest(part: ChatPart) -> ChatPart:
    return part if part.image is None else replace(part, image=_source_by_digest(part.image))


def _source_by_digest(source: ImageSource) -> ImageSource:
    if not source.data:
        return source
    return replace(source, data=None, digest=hashlib.sha256(source.data).digest())
