from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.kept import Granule, KeptEmbeddings, KeptKv
from tests.simulator.profiles import ROUND


class Room:
    """Of a pool, in tokens; a test changes it."""

    def __init__(self, tokens: int = 4096) -> None:
        self.tokens = tokens

    def __call__(self) -> int:
        return self.tokens


def chain(*names: str, tokens: int = 100) -> list[Granule]:
    """Each name stands for itself and all before it."""
    return [
        Granule("/".join(names[:count]).encode(), tokens, tokens * count)
        for count in range(1, len(names) + 1)
    ]


def test_a_prefix_is_there_up_to_its_first_miss() -> None:
    kept = KeptKv(ROUND, Room())
    kept.put(chain("a", "b", "c"), 0.0)
    assert kept.tokens(chain("a", "b", "x", "c"), 1.0) == kept.take(chain("a", "b", "x"), 1.0) == 200
    assert kept.tokens(chain("b"), 1.0) == 0


def test_what_has_no_room_any_more_goes_from_its_end() -> None:
    room = Room()
    kept = KeptKv(ROUND, room)
    kept.put(chain("a", "b", "c"), 0.0)
    room.tokens = 250
    assert kept.tokens(chain("a", "b", "c"), 1.0) == 200
    room.tokens = 4096
    assert kept.tokens(chain("a", "b", "c"), 2.0) == 200


def test_a_long_prompt_is_kept_as_far_as_there_is_room() -> None:
    kept = KeptKv(ROUND, Room(250))
    kept.put(chain("a", "b", "c"), 0.0)
    assert kept.tokens(chain("a", "b", "c"), 0.0) == 200


def test_a_prompt_lies_in_room_of_its_own_while_it_runs() -> None:
    kept = KeptKv(ROUND, Room(50))
    kept.put(chain("a"), 0.0, more_tokens=100)
    assert kept.tokens(chain("a"), 0.0) == 0  # 50 are left where 100 would be needed


def test_embeddings_come_and_go() -> None:
    kept = KeptEmbeddings(ROUND)
    kept.put(b"a", 4000, 0.0)
    assert kept.take(b"a", 1.0)
    kept.put(b"b", 4000, 2.0)
    assert [kept.has(key, 3.0) for key in (b"a", b"b")] == [False, True]
    kept.put(b"huge", 5000, 3.0)
    assert not kept.has(b"huge", 3.0)


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)
verbs = st.lists(st.tuples(st.sampled_from(["put", "take", "look"]), names, st.integers(0, 900)), max_size=40)


@given(verbs)
def test_never_more_than_the_room_and_never_a_part_without_its_head(
    steps: list[tuple[str, list[str], int]],
) -> None:
    room = Room()
    kept = KeptKv(ROUND, room)
    for at_s, (verb, parts, tokens) in enumerate(steps):
        room.tokens = tokens
        asked = chain(*parts)
        if verb == "put":
            was_there = kept.tokens(asked, float(at_s))
            kept.put(asked, float(at_s))
            if not was_there:
                assert kept.tokens(asked, float(at_s)) == min(100 * len(parts), tokens // 100 * 100)
        elif verb == "take":
            assert kept.take(asked, float(at_s)) <= tokens
        assert kept.tokens(asked, float(at_s)) <= tokens
        kept.check_integrity()
