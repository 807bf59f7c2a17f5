"""Pictures of a call with several choices cross to the coordinator once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ImageSource
from coordinator.errors import NotFoundError, OverloadedError, ServiceError
from coordinator.events import AcceptedEvent, Emit, Event
from coordinator.front.pictures_once import PicturesOnce
from tests.coordinator.conftest import MakeBench, picture
from tests.coordinator.front.test_door import Stand, stand
from tests.coordinator.openai.conftest import HttpBench, error_of

__all__ = ["stand"]

BYTES = b"a picture"
URL = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
PARTS = [
    {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
    {"type": "text", "text": "what?"},
]


@pytest.fixture
async def door(make_bench: MakeBench, stand: Stand) -> HttpBench:
    made: HttpBench = await stand(await make_bench("epd", gateway=True))
    return made


@pytest.fixture
def arrived(door: HttpBench) -> list[ImageSource]:
    """The pictures of all calls that the coordinator gets."""
    inner, sources = door.bench.coordinator.door, []
    generate = inner.generate

    async def note(call: GenerateCall, emit: Emit) -> None:
        sources.extend(part.image for message in call.messages for part in message.parts if part.image)
        await generate(call, emit)

    inner.generate = note
    return sources


async def test_bytes_travel_once_and_every_choice_sees_the_picture(
    door: HttpBench, arrived: list[ImageSource]
) -> None:
    answer = (await door.chat(PARTS, n=4, seed=3)).json()
    assert [each.kind for each in arrived] == ["data", "digest", "digest", "digest"]
    assert {each.digest for each in arrived[1:]} == {sha256(picture()).digest()}
    assert {each.max_pixels for each in arrived} == {512 * 512}
    alone = [(await door.chat(PARTS, seed=3 + index)).json()["choices"][0]["message"] for index in range(4)]
    assert [each["message"] for each in answer["choices"]] == alone
    await door.bench.until(lambda: not door.bench.gateway.store.num_leases)
    await door.bench.assert_idle()


async def test_one_choice_sends_its_bytes(door: HttpBench, arrived: list[ImageSource]) -> None:
    assert (await door.chat(PARTS, stream=True)).status_code == 200
    assert [each.kind for each in arrived] == ["data"]


async def test_what_the_first_is_refused_for_is_told_once(
    door: HttpBench, arrived: list[ImageSource]
) -> None:
    bad = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    error = error_of(await door.chat([bad], n=3))
    assert error["param"] == "messages[0].content[0].image_url.url"
    assert [each.kind for each in arrived] == ["data"]


@dataclass
class Coordinator:
    """Accepts and ends each call, but for what `refusal` says of it."""

    refusal: Callable[[GenerateCall], ServiceError | None] = lambda _: None
    kinds: list[str | None] = field(default_factory=list)

    async def generate(self, call: GenerateCall, emit: Emit) -> None:
        self.kinds.append(source_of(call).kind)
        if (error := self.refusal(call)) is not None:
            raise error
        await emit(AcceptedEvent(call.request_id, "m", 0, 1))


def source_of(call: GenerateCall) -> ImageSource:
    image = call.messages[0].parts[0].image
    assert image is not None
    return image


CALL = GenerateCall((ChatMessage("user", (ChatPart(image=ImageSource(data=BYTES)),)),))


async def choose(coordinator: Coordinator, num_choices: int, call: GenerateCall = CALL) -> list[object]:
    """Errors and None, by choice."""
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    generate = PicturesOnce(coordinator.generate).generate
    choices = (generate(call, emit) for _ in range(num_choices))
    return await asyncio.gather(*choices, return_exceptions=True)


async def test_what_the_store_let_go_of_is_sent_again() -> None:
    def lost(call: GenerateCall) -> ServiceError | None:
        is_named = source_of(call).kind == "digest"
        return NotFoundError("messages[0].parts[0].image.digest", "is gone") if is_named else None

    coordinator = Coordinator(lost)
    assert await choose(coordinator, 2) == [None, None]
    assert coordinator.kinds == ["data", "digest", "data"]


async def test_another_thing_that_is_not_found_is_no_reason_to_send_again() -> None:
    coordinator = Coordinator(
        lambda call: NotFoundError("model", "no") if source_of(call).kind == "digest" else None
    )
    first, second = await choose(coordinator, 2)
    assert (first, type(second)) == (None, NotFoundError)
    assert coordinator.kinds == ["data", "digest"]


async def test_a_refusal_of_the_first_is_everyones() -> None:
    coordinator = Coordinator(lambda _: OverloadedError("full", 1.0))
    assert [type(each) for each in await choose(coordinator, 3)] == [OverloadedError] * 3
    assert coordinator.kinds == ["data"]


async def test_pictures_by_address_go_as_they_are() -> None:
    part = ChatPart(image=ImageSource(url="https://x/y.png"))
    coordinator = Coordinator()
    await choose(coordinator, 3, GenerateCall((ChatMessage("user", (part,)),)))
    assert coordinator.kinds == ["url"] * 3
