from __future__ import annotations

from dataclasses import replace

import pytest

from core.cache.chain import MediaRange, block_keys, extend_chain
from core.cache.keys import chain_start
from core.sampling import SamplingParams
from core.sequence import CacheUse, MediaSpan, SequenceSpec
from stage_servers.cache.sequence_keys import SequenceKeys

PICTURE = MediaSpan(0, 40, 30, (1, 2, 2), bytes(32), bytes([7] * 32))
SPEC = SequenceSpec(
    "r", 0, tuple(range(120)), SamplingParams(max_tokens=4), (PICTURE,), cache=CacheUse(bytes(32), "t")
)


@pytest.mark.parametrize("block_tokens", [16, 32])
@pytest.mark.parametrize("steps", [[120], [10, 33, 60, 61, 120], [0, 119, 100]])
def test_keys_are_those_of_the_chain_however_tokens_come(block_tokens: int, steps: list[int]) -> None:
    keys = SequenceKeys(SPEC, "model", block_tokens)
    whole = extend_chain(chain_start("model", bytes(32)), SPEC.prompt, [MediaRange(40, 30, PICTURE.identity)])
    for num_tokens in steps:
        wanted = block_keys(whole, block_tokens)[: num_tokens // block_tokens]
        assert keys.of(SPEC.prompt, num_tokens) == wanted


def test_nothing_from_an_unknown_picture_on_has_a_key() -> None:
    keys = SequenceKeys(replace(SPEC, media=(replace(PICTURE, identity=b""),)), "model", 16)
    assert len(keys.of(SPEC.prompt, 120)) == 2
    assert keys.tail(SPEC.prompt, 32, 48) == tuple(range(32, 40))
    assert keys.tail(SPEC.prompt, 80, 90) == ()


def test_a_tail_holds_which_part_of_which_picture_it_is() -> None:
    tail = SequenceKeys(SPEC, "model", 16).tail(SPEC.prompt, 32, 42)
    assert tail == (*range(32, 40), (PICTURE.identity, 0), (PICTURE.identity, 1))


@pytest.mark.parametrize(
    ("field", "spec", "size"), [("cache", replace(SPEC, cache=None), 16), ("block_tokens", SPEC, 8)]
)
def test_what_has_no_keys_is_refused(field: str, spec: SequenceSpec, size: int) -> None:
    with pytest.raises(ValueError, match=field):
        SequenceKeys(spec, "model", size)
