from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.cache import digests
from coordinator.cache.digests import DigestTable, as_keys


def key(number: int, tag: int = 0) -> bytes:
    """Many with the same tag, and in few buckets."""
    return tag.to_bytes(8, "little") + (number % 3).to_bytes(8, "little") * 2 + number.to_bytes(8, "little")


def put(table: DigestTable, changes: dict[bytes, int]) -> None:
    table.put(as_keys(list(changes)), np.array(list(changes.values()), np.int32))


def values(table: DigestTable, keys: list[bytes]) -> list[int]:
    found: list[int] = table.values(as_keys(keys)).tolist()
    return found


CHANGES = st.dictionaries(st.integers(0, 60).map(key), st.integers(0, 3), min_size=1, max_size=30)


@given(st.lists(CHANGES, max_size=12))
@settings(max_examples=150)
def test_it_holds_what_a_dict_holds_even_where_all_keys_want_the_same_buckets(
    batches: list[dict[bytes, int]],
) -> None:
    table, model = DigestTable(8), dict[bytes, int]()
    for changes in batches:
        put(table, changes)
        model |= changes
        assert values(table, list(model)) == list(model.values())
        assert [table.value(each) for each in model] == list(model.values())
        assert len(table) == sum(value > 0 for value in model.values())


def test_keys_that_differ_in_their_last_bit_only_are_different() -> None:
    table = DigestTable()
    one = bytes(31) + b"\x01"
    put(table, {one: 1})
    assert values(table, [one, bytes(32), bytes(31) + b"\x00"]) == [1, 0, 0]


def test_a_key_that_was_removed_is_not_found_in_its_slot() -> None:
    table = DigestTable()
    put(table, {key(1): 1})
    put(table, {key(1): 0})
    assert values(table, [key(1)]) == [0]
    assert len(table) == 0


def test_it_grows_and_keeps_all() -> None:
    table = DigestTable(10)
    keys = [blake2b(bytes([n % 256, n // 256]), digest_size=32).digest() for n in range(5000)]
    for first in range(0, 5000, 100):
        put(table, dict.fromkeys(keys[first : first + 100], first + 1))
    assert values(table, keys) == [n // 100 * 100 + 1 for n in range(5000)]
    assert 5000 * 50 <= table.size_bytes <= 5000 * 125


def test_values_are_replaced_slot_by_slot_and_beside_them() -> None:
    table = DigestTable(100)
    keys = [key(3 * n) for n in range(30)]  # two buckets' worth, and more
    put(table, {each: 1 + n % 2 for n, each in enumerate(keys)})
    assert table.used_values(4).tolist() == [True, True, True, False]
    for first in range(0, table.num_slots, 8):
        table.remap(first, 8, np.array([0, 0, 3], np.int32))
    assert values(table, keys) == [0, 3] * 15
    assert len(table) == 15


def test_only_whole_digests_are_keys() -> None:
    with pytest.raises(ValueError, match="digests: should have 32 bytes"):
        as_keys([bytes(32), bytes(8), bytes(56)])
    assert digests.DIGEST_BYTES == 32
