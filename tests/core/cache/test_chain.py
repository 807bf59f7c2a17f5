from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.cache.chain import GRANULE_TOKENS, MediaRange, block_keys, extend_chain
from core.cache.keys import chain_start, embedding_key, media_identity

START = chain_start("model", b"tenant")
PLACEHOLDER = 7
CAT, DOG = (media_identity(sha256(name).digest(), {"max_pixels": 100}) for name in (b"cat", b"dog"))


def picture(first_token: int, num_tokens: int = 40, identity: bytes = CAT) -> MediaRange:
    return MediaRange(first_token, num_tokens, identity)


def test_a_digest_per_whole_granule_and_each_depends_on_all_before_it() -> None:
    chain = extend_chain(START, range(40))
    assert [len(digest) for digest in chain] == [32, 32]
    assert extend_chain(START, range(47)) == chain
    assert extend_chain(START, [9, *range(1, 40)])[1] != chain[1]


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_chain_goes_on_from_any_granule(cut: int) -> None:
    tokens, media = [PLACEHOLDER] * 80, [picture(5), picture(50, 20, DOG)]
    whole = extend_chain(START, tokens, media)
    parent = whole[cut - 1] if cut else START
    at = cut * GRANULE_TOKENS
    assert whole[:cut] + extend_chain(parent, tokens[at:], media, at) == whole


def test_near_collisions_have_other_chains() -> None:
    tokens = [1] * 8 + [PLACEHOLDER] * 40 + [2] * 48
    content = sha256(b"cat").digest()
    chains = [
        extend_chain(START, tokens, [picture(8)]),
        extend_chain(START, tokens),  # a text that spells the placeholder
        extend_chain(START, tokens, [picture(8, identity=media_identity(content, {"max_pixels": 200}))]),
        extend_chain(START, tokens, [picture(8, identity=DOG)]),
        extend_chain(START, tokens, [picture(8, 39)]),
        extend_chain(START, tokens, [picture(9, 39)]),  # the same picture at another offset
        extend_chain(START, tokens, [picture(8, 20), picture(28, 20)]),  # twice a half for one whole
        extend_chain(START, tokens, [picture(8, 20), picture(28, 20, DOG)]),
        extend_chain(START, tokens, [picture(8, 20, DOG), picture(28, 20)]),  # swapped
        extend_chain(chain_start("other model", b"tenant"), tokens, [picture(8)]),
        extend_chain(chain_start("model", b"other tenant"), tokens, [picture(8)]),
        extend_chain(chain_start("modelt", b"enant"), tokens, [picture(8)]),
    ]
    assert len({chain[-1] for chain in chains}) == len(chains)


def test_pictures_swapped_beyond_a_shared_granule_share_its_digest_alone() -> None:
    tokens = [1] * GRANULE_TOKENS + [PLACEHOLDER] * 64
    one = extend_chain(START, tokens, [picture(16, 32), picture(48, 32, DOG)])
    other = extend_chain(START, tokens, [picture(16, 32, DOG), picture(48, 32)])
    assert one[0] == other[0]
    assert not set(one[1:]) & set(other[1:])


Unified = list[tuple[int, bytes, int]]  # each token's id, the item it is of, its place in that


@st.composite
def sequences(draw: st.DrawFn) -> tuple[list[int], list[MediaRange]]:
    """Of few words and pictures, so that equal ones come up."""
    tokens: list[int] = []
    media: list[MediaRange] = []
    for count, identity in draw(
        st.lists(st.tuples(st.sampled_from([1, 8, 16]), st.sampled_from([None, CAT, DOG])), max_size=5)
    ):
        if identity:
            media.append(MediaRange(len(tokens), count, identity))
        tokens += [PLACEHOLDER] * count
    return tokens, media


def unified(tokens: list[int], media: list[MediaRange]) -> Unified:
    found = [(token, b"", 0) for token in tokens]
    for item in media:
        for offset in range(item.num_tokens):
            found[item.first_token + offset] = (PLACEHOLDER, item.identity, offset)
    return found[: len(tokens) // GRANULE_TOKENS * GRANULE_TOKENS]


@given(sequences(), sequences())
def test_chains_are_equal_as_far_as_sequences_are(
    one: tuple[list[int], list[MediaRange]], other: tuple[list[int], list[MediaRange]]
) -> None:
    pairs = zip(extend_chain(START, *one), extend_chain(START, *other), strict=False)
    for granule, (mine, yours) in enumerate(pairs, 1):
        end = granule * GRANULE_TOKENS
        assert (mine == yours) == (unified(*one)[:end] == unified(*other)[:end])


def test_an_embedding_is_known_by_picture_settings_model_and_salt() -> None:
    content = sha256(b"cat").digest()
    keys = {
        embedding_key(model, salt, media_identity(content, settings))
        for model in ("a", "b")
        for salt in (b"", b"t")
        for settings in ({"max_pixels": 1}, {"max_pixels": 2}, {"min_pixels": 1}, {"max_pixels": 1.0})
    }
    assert len(keys) == 16


def test_blocks_of_several_granules_are_known_by_their_last() -> None:
    chain = extend_chain(START, range(16 * 5))
    assert block_keys(chain, 16) == chain
    assert block_keys(chain, 32) == [chain[1], chain[3]]
    with pytest.raises(ValueError, match="block_tokens: 24"):
        block_keys(chain, 24)


@pytest.mark.parametrize(
    ("media", "first_token", "problem"),
    [
        ([picture(0), picture(39)], 0, "two items at token 39"),
        ([picture(50), picture(0)], 0, "two items at token 0"),
        ([], 8, "within a granule"),
    ],
)
def test_what_is_no_sequence_is_refused(media: list[MediaRange], first_token: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        extend_chain(START, [PLACEHOLDER] * 96, media, first_token)


def test_token_ids_beyond_32_bits_and_short_digests_are_refused() -> None:
    with pytest.raises(OverflowError):
        extend_chain(START, [1 << 32] * 16)
    with pytest.raises(ValueError, match="parent"):
        extend_chain(START[:8], range(16))
    with pytest.raises(ValueError, match="identity"):
        MediaRange(0, 4, b"short")
