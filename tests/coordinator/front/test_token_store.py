"""Tokens are asked for once."""

from __future__ import annotations

import pytest

from coordinator.events import TokensEvent
from coordinator.front.token_store import TokenStore
from core.sequence import TokenLogprobs


class Asked:
    def __init__(self) -> None:
        self.questions: list[list[int]] = []

    async def __call__(self, ids: list[int]) -> list[bytes]:
        self.questions.append(ids)
        return [f"<{each}>".encode() for each in ids]


async def test_chosen_ones_and_alternatives() -> None:
    store, asked = TokenStore(), Asked()
    await store.learn(TokensEvent(0, (3,), "", (TokenLogprobs(-1.0, ((5, -1.0), (3, -2.0))),)), asked)
    await store.learn(TokensEvent(1, (5,), "", (TokenLogprobs(-1.0, ((6, -1.0),)),)), asked)
    await store.learn(TokensEvent(2, (6,), "", (TokenLogprobs(-1.0, ()),)), asked)
    assert asked.questions == [[3, 5], [6]]
    assert store.texts.text_of(5) == "<5>"


async def test_without_log_probabilities_nothing_is_asked() -> None:
    asked = Asked()
    await TokenStore().learn(TokensEvent(0, (3,), "x"), asked)
    assert not asked.questions


async def test_questions_are_no_larger_than_may_be() -> None:
    store, asked = TokenStore(), Asked()
    top = tuple((token_id, -1.0) for token_id in range(5000))
    await store.learn(TokensEvent(0, (0,), "", (TokenLogprobs(0.0, top),)), asked)
    assert [len(each) for each in asked.questions] == [2048, 2048, 904]
    assert store.texts.bytes_of(4999) == b"<4999>"


async def test_an_answer_that_is_too_short_is_none() -> None:
    async def ask(_: list[int]) -> list[bytes]:
        return []

    with pytest.raises(ValueError, match="shorter"):
        await TokenStore().learn(TokensEvent(0, (3,), "", (TokenLogprobs(0.0, ()),)), ask)
