from __future__ import annotations

from core.cache.chain import MediaRange, extend_chain
from core.cache.keys import chain_start
from core.cache.tails import tail_key, tail_units

CAT = b"c" * 32


def test_media_tokens_are_known_by_their_item_and_place() -> None:
    media = [MediaRange(10, 8, CAT)]
    assert tail_units([1, 7, 7], media, first_token=9) == (1, (CAT, 0), (CAT, 1))
    assert tail_units([7, 2], media, first_token=17) == ((CAT, 7), 2)


def test_a_tail_of_a_whole_blocks_tokens_is_not_known_as_that_block() -> None:
    start = chain_start("m", b"")
    assert tail_key(start, range(16)) not in extend_chain(start, range(16))
    assert tail_key(start, (1, 2)) != tail_key(start, (1, (CAT, 2)))
