"""The coordinator's keys are those of the instances, made in steps and extended by the answer."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.cache.request_keys import RequestKeys, begin_keys, make_keys
from core.cache.chain import MediaRange, extend_chain
from core.cache.keys import chain_start, embedding_key
from core.sequence import CacheUse, MediaSpan

USE = CacheUse(b"s" * 32, "tenant")
SPAN = MediaSpan(0, 40, 3000, (1, 2, 2), b"d" * 32, b"i" * 32)
UNKNOWN = MediaSpan(0, 40, 30, (1, 2, 2), b"d" * 32)
PROMPT = tuple(range(5000))


def made(prompt: tuple[int, ...], *spans: MediaSpan, use: CacheUse = USE) -> RequestKeys:
    return asyncio.run(make_keys("model", use, prompt, spans))


def whole_chain(prompt: tuple[int, ...], *spans: MediaSpan) -> list[bytes]:
    ranges = [MediaRange(span.first_token, span.num_tokens, span.identity) for span in spans]
    return extend_chain(chain_start("model", USE.salt), prompt, ranges)


@pytest.mark.parametrize("num_tokens", [1, 16, 17, 2048, 2049, 4097, 5000])
def test_steps_make_the_chain_of_the_whole(num_tokens: int) -> None:
    prompt = PROMPT[:num_tokens]
    assert list(made(prompt).chain) == whole_chain(prompt[:-1])


def test_media_are_in_the_chain_and_have_keys_of_their_own() -> None:
    keys = made(PROMPT, SPAN)
    assert list(keys.chain) == whole_chain(PROMPT[:-1], SPAN)
    assert keys.embeddings == (embedding_key("model", USE.salt, SPAN.identity),)


def test_the_granule_of_the_last_token_is_left_out() -> None:
    assert [len(made(PROMPT[:number]).chain) for number in (15, 16, 17, 32, 33)] == [0, 0, 1, 1, 2]


def test_the_chain_ends_before_what_has_no_identity() -> None:
    keys = made(PROMPT, UNKNOWN)
    assert list(keys.chain) == whole_chain(PROMPT[:32])
    assert keys.embeddings == (None,)


def test_an_answer_extends_the_chain() -> None:
    keys = made(PROMPT[:100], use=USE)
    longer = keys.extended(PROMPT[:150], ())
    assert longer == made(PROMPT[:150])
    assert keys.extended(PROMPT[:101], ()) is keys


def test_another_salt_has_nothing_in_common() -> None:
    mine, other = made(PROMPT[:600], SPAN), made(PROMPT[:600], SPAN, use=CacheUse(b"o" * 32, "tenant"))
    assert not {*mine.chain, *mine.embeddings} & {*other.chain, *other.embeddings}


async def test_a_long_prompt_lets_others_have_their_turn() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await make_keys("model", USE, PROMPT * 2, ())
    counting.cancel()
    assert turns >= 4
    assert begin_keys("model", USE, ()).chain == ()
