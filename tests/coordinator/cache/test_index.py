from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.cache.holders import HolderSets, members
from coordinator.cache.index import ClusterIndex

KEYS = [bytes([number]) * 32 for number in range(140)]
PLACES = st.integers(0, len(KEYS))
NAMES = ["a", "b", "c"]


def index_of(**stored: list[bytes]) -> ClusterIndex:
    index = ClusterIndex()
    for name, keys in stored.items():
        index.attach(name, 1)
        assert index.update(name, 1, keys)
    return index


def test_each_instance_has_its_longest_prefix() -> None:
    index = index_of(a=KEYS, b=KEYS[:3], c=KEYS[1:2])
    assert index.prefixes(KEYS[:8]) == {"a": 8, "b": 3}
    assert index.prefixes([b"\xff" * 32]) == {}
    assert index.prefixes([]) == {}


@pytest.mark.parametrize("lengths", [(2999, 128, 1000), (64, 63, 65), (1, 2, 2998), (128, 128, 127)])
def test_prefixes_of_a_long_chain_are_found_to_the_block(lengths: tuple[int, ...]) -> None:
    chain = [number.to_bytes(32, "big") for number in range(1, 3000)]
    index = index_of(**{name: chain[:length] for name, length in zip(NAMES, lengths, strict=True)})
    assert index.prefixes(chain) == dict(zip(NAMES, lengths, strict=True))
    assert index.prefixes(chain[:64]) == {
        name: min(64, length) for name, length in zip(NAMES, lengths, strict=True)
    }


def test_only_those_asked_for_count() -> None:
    index = index_of(a=KEYS, b=KEYS[:3], c=KEYS[:2])
    mask = index.mask_of(["b", "c", "unknown"])
    assert index.prefixes(KEYS, among=mask, key_tokens=16) == {"b": 48, "c": 32}
    index.detach("c")
    assert index.prefixes(KEYS, among=mask) == {"b": 3}


def test_an_answer_stays_as_it_was_when_numbers_are_given_again() -> None:
    index = index_of(a=KEYS, b=KEYS[:3])
    before = index.prefixes(KEYS)
    index.detach("a")
    while not index.is_tidy:
        index.tidy()
    index.attach("new", 1)
    assert before == {"a": len(KEYS), "b": 3}


def test_holders_of_an_embedding() -> None:
    index = index_of(a=KEYS[:2], b=KEYS[1:2])
    assert index.holders(KEYS[1]) == ["a", "b"]
    assert index.holders(KEYS[2]) == []


def test_a_new_life_has_nothing_and_reports_of_the_old_one_are_dropped() -> None:
    index = index_of(a=KEYS, b=KEYS[:1])
    index.attach("a", 2)
    assert index.prefixes(KEYS) == {"b": 1}
    assert not index.update("a", 1, KEYS)
    assert index.update("a", 2, KEYS[:2])
    assert index.prefixes(KEYS) == {"b": 1, "a": 2}


def test_numbers_of_the_gone_are_given_again_only_after_a_sweep() -> None:
    index = index_of(a=KEYS)
    index.detach("a")
    index.attach("b", 1)
    assert index.prefixes(KEYS) == {}
    assert not index.is_tidy
    assert len(index) == len(KEYS)
    while not index.is_tidy:
        index.tidy(most_slots=64)
    assert len(index) == 0
    index.attach("c", 1)  # in the place of "a"
    assert index.prefixes(KEYS) == {}


def test_one_that_goes_during_a_sweep_is_taken_out_by_the_next() -> None:
    index = index_of(a=KEYS, b=KEYS)
    index.detach("a")
    index.tidy(most_slots=64)
    index.detach("b")
    for _ in range(1000):
        index.tidy(most_slots=64)
    assert index.is_tidy
    assert len(index) == 0


def test_a_sweep_begins_again_where_the_table_has_grown() -> None:
    index = index_of(a=KEYS, b=[])
    num_slots = index.size_bytes // 40
    index.detach("a")
    index.tidy(num_slots - 1)
    index.update("b", 1, [number.to_bytes(32, "big") for number in range(1, 3000)])
    index.tidy(num_slots)
    assert not index.is_tidy
    index.tidy(1 << 20)
    assert index.is_tidy
    assert len(index) == 2999


def test_sets_that_nobody_has_any_more_are_forgotten() -> None:
    sets = HolderSets()
    one, both = sets.with_holder(0, 3), sets.with_holder(sets.with_holder(0, 3), 70)
    assert members(sets.mask(both)).tolist() == [3, 70]
    assert sets.without_holder(both, 70) == one
    sets.forget_unused(np.array([True, False, True]))
    assert len(sets) == 2
    assert sets.with_holder(0, 5) == one  # its number again
    assert members(sets.mask(one)).tolist() == [5]


@dataclass
class Model:
    """What each instance has, in plain sets."""

    epochs: dict[str, int] = field(default_factory=dict)
    has: dict[str, set[bytes]] = field(default_factory=dict)

    def prefixes(self, chain: list[bytes]) -> dict[str, int]:
        found = {}
        for name, keys in self.has.items():
            length = next((at for at, key in enumerate(chain) if key not in keys), len(chain))
            if length:
                found[name] = length
        return found


class IndexMachine(RuleBasedStateMachine):
    """The index against plain sets, through any order of reports, deaths, new lives and sweeps."""

    def __init__(self) -> None:
        super().__init__()
        self.index, self.model = ClusterIndex(4), Model()

    @rule(name=st.sampled_from(NAMES), epoch=st.integers(1, 3))
    def attach(self, name: str, epoch: int) -> None:
        self.index.attach(name, epoch)
        self.model.epochs[name], self.model.has[name] = epoch, set()

    @rule(name=st.sampled_from(NAMES))
    def detach(self, name: str) -> None:
        self.index.detach(name)
        self.model.epochs.pop(name, None)
        self.model.has.pop(name, None)

    @rule(name=st.sampled_from(NAMES), epoch=st.integers(1, 3), ends=st.tuples(PLACES, PLACES))
    def update(self, name: str, epoch: int, ends: tuple[int, int]) -> None:
        """As instances do: leading blocks come, trailing ones go."""
        stored, evicted = KEYS[: min(ends)], KEYS[max(ends) :]
        is_taken = self.index.update(name, epoch, stored, evicted)
        assert is_taken == (self.model.epochs.get(name) == epoch)
        if is_taken:
            self.model.has[name] = self.model.has[name] - set(evicted) | set(stored)

    @rule(slots=st.integers(1, 40))
    def tidy(self, slots: int) -> None:
        self.index.tidy(slots)

    @rule(length=PLACES)
    def look_up(self, length: int) -> None:
        chain = KEYS[:length]
        assert self.index.prefixes(chain) == self.model.prefixes(chain)

    @invariant()
    def holders_are_right(self) -> None:
        for key in KEYS[::20]:
            assert sorted(self.index.holders(key)) == sorted(n for n, k in self.model.has.items() if key in k)

    def teardown(self) -> None:
        for _ in range(3 * 40):
            self.index.tidy(64)
        assert self.index.is_tidy
        assert len(self.index) == len({key for keys in self.model.has.values() for key in keys})


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=60, stateful_step_count=30)


@given(st.sets(st.integers(0, 1500)))
def test_members_of_a_mask(numbers: set[int]) -> None:
    assert members(sum(1 << number for number in numbers)).tolist() == sorted(numbers)
