"""Conversations with pictures: who says what, and how each turn went."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.load.pictures import make_picture
from cli.load.texts import TextMaker
from elasticmm_client import AsyncClient, GenerateResult, user_message


@dataclass(frozen=True, slots=True)
class TalkSpec:
    """What the users do."""

    users: int = 20
    turns: int = 8
    pictures: int = 5  # one in each of the first turns
    picture_size: tuple[int, int] = (448, 448)
    text_tokens: int = 64
    output_tokens: int = 16
    at_a_time: int = 2  # users whose turn is being answered
    window: int | None = None  # messages of the user that a turn still sends, its own included; None: all


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of one user's conversation."""

    user: int
    number: int
    ttft_s: float
    prompt_tokens: int
    cached_tokens: int
    sent_pictures: int
    new_pictures: int  # those of them that were never sent before
    encoded_pictures: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _User:
    number: int
    messages: tuple[dict[str, Any], ...]  # what the user says, turn by turn


async def play(address: str, spec: TalkSpec, texts: TextMaker, seed: int) -> list[Turn]:
    """All users say their first words, then all their second, and so on, `at_a_time` of them at once.

    Turn by turn, user by user. No two seeds share anything in a cache.
    """
    talks = [_Talk(_make_user(spec, texts, number, seed)) for number in range(spec.users)]
    places = asyncio.Semaphore(spec.at_a_time)
    turns: list[Turn] = []
    async with AsyncClient(address) as client:
        await client.model()

        async def say(talk: _Talk) -> Turn:
            async with places:
                return await talk.next_turn(client, spec, tenant=f"seed-{seed}")

        for _ in range(spec.turns):
            turns += await asyncio.gather(*map(say, talks))
    return turns


class _Talk:
    """One user's conversation so far."""

    def __init__(self, user: _User) -> None:
        self._user = user
        self._answers: list[str] = []

    async def next_turn(self, client: AsyncClient, spec: TalkSpec, tenant: str) -> Turn:
        said = self._user.messages[: len(self._answers) + 1]
        messages = _history(said, self._answers, spec.window)
        result = await client.generate(
            messages, max_tokens=spec.output_tokens, ignore_eos=True, tenant=tenant, timeout_s=600.0
        ).result()
        turn = self._turn(result, _num_pictures(messages), _num_pictures(said[-1:]))
        self._answers.append(result.text)
        return turn

    def _turn(self, result: GenerateResult, sent_pictures: int, new_pictures: int) -> Turn:
        assert result.ttft_ms is not None
        return Turn(
            user=self._user.number,
            number=len(self._answers),
            ttft_s=result.ttft_ms / 1e3,
            prompt_tokens=result.usage.prompt_tokens,
            cached_tokens=result.usage.cached_tokens,
            sent_pictures=sent_pictures,
            new_pictures=new_pictures,
            encoded_pictures=sent_pictures - result.usage.cached_media,
            token_ids=result.token_ids,
        )


def _history(
    said: Sequence[dict[str, Any]], answers: Sequence[str], window: int | None
) -> list[dict[str, Any]]:
    """Words and answers in turn, the newest last."""
    first = 0 if window is None else max(0, len(said) - window)
    messages: list[dict[str, Any]] = []
    for number in range(first, len(said)):
        messages.append(said[number])
        if number < len(answers):
            messages.append({"role": "assistant", "content": answers[number]})
    return messages


def _num_pictures(messages: Sequence[dict[str, Any]]) -> int:
    parts = [part for each in messages if isinstance(each["content"], list) for part in each["content"]]
    return sum(part["type"] == "image" for part in parts)


def _make_user(spec: TalkSpec, texts: TextMaker, number: int, seed: int) -> _User:
    rng = random.Random(f"{seed} {number}")
    said = []
    for turn in range(spec.turns):
        pictures = [make_picture(*spec.picture_size, rng)] if turn < spec.pictures else []
        said.append(user_message(texts.make(spec.text_tokens, rng), *pictures))
    return _User(number, tuple(said))
