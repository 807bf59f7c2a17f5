"""What is copied while a sequence decodes, and when it is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from kv_transfer.errors import TransferError
from stage_servers.engine.records import DecodeState, NotDecoding
from stage_servers.kv_copy import FEW_TOKENS, MOST_ROUNDS, KvCopy

KEY = ("r", 0)


@dataclass
class FakeOutgoing:
    """Remembers (first token, number of tokens); writes only when it is told to."""

    pushes: list[tuple[int, int]] = field(default_factory=list)
    is_behind: bool = False
    error: Exception | None = None

    def push(self, first_token: int, num_tokens: int, planes: range, source_blocks: Sequence[int]) -> None:
        assert planes == range(6)
        assert len(source_blocks) * 16 >= first_token + num_tokens
        self.pushes.append((first_token, num_tokens))
        self.is_behind = True


@dataclass
class FakeEngine:
    """One sequence that decodes."""

    num_tokens: int = 100
    num_restarts: int = 0
    is_frozen: bool = False

    def decode_state(self, key: tuple[str, int]) -> DecodeState:
        assert key == KEY
        return DecodeState(tuple(range(32)), self.num_tokens, 400, (1,), self.num_restarts)

    def freeze(self, key: tuple[str, int]) -> DecodeState:
        self.is_frozen = True
        return self.decode_state(key)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def outgoing() -> FakeOutgoing:
    return FakeOutgoing()


@pytest.fixture
def copy(engine: FakeEngine, outgoing: FakeOutgoing) -> KvCopy:
    return KvCopy(engine, KEY, outgoing, 6)  # type: ignore[arg-type]


def test_it_freezes_once_little_is_left(copy: KvCopy, engine: FakeEngine, outgoing: FakeOutgoing) -> None:
    assert copy.look(300) is None
    engine.num_tokens += 2
    assert copy.look(300) is None  # the first round is not written yet
    outgoing.is_behind = False
    assert copy.look(300) is None  # it was no short round, so another one
    outgoing.is_behind = False
    engine.num_tokens += 1
    frozen = copy.look(300)
    assert frozen is not None
    assert engine.is_frozen
    assert outgoing.pushes == [(0, 100), (100, 2), (102, 1)]
    assert frozen.state.num_tokens == 103


def test_a_short_prompt_needs_one_round(copy: KvCopy, engine: FakeEngine, outgoing: FakeOutgoing) -> None:
    engine.num_tokens = FEW_TOKENS
    assert copy.look(300) is None
    outgoing.is_behind = False
    assert copy.look(300) is not None
    assert outgoing.pushes == [(0, FEW_TOKENS)]


def test_rounds_that_do_not_shrink_are_bounded(
    copy: KvCopy, engine: FakeEngine, outgoing: FakeOutgoing
) -> None:
    for _ in range(MOST_ROUNDS):
        assert copy.look(500) is None
        outgoing.is_behind = False
        engine.num_tokens += FEW_TOKENS + 1
    assert copy.look(500) is not None
    assert len(outgoing.pushes) == MOST_ROUNDS + 1


def test_a_preempted_sequence_is_not_moved(copy: KvCopy, engine: FakeEngine, outgoing: FakeOutgoing) -> None:
    copy.look(300)
    outgoing.is_behind = False
    engine.num_restarts = 1
    with pytest.raises(NotDecoding, match="preempted"):
        copy.look(300)
    assert not engine.is_frozen


def test_a_copy_that_does_not_keep_up_ends(copy: KvCopy, engine: FakeEngine) -> None:
    copy.look(102)
    engine.num_tokens = 103
    with pytest.raises(NotDecoding, match="keep up"):
        copy.look(102)
    assert not engine.is_frozen


def test_a_failed_transfer_ends_before_the_freeze(
    copy: KvCopy, engine: FakeEngine, outgoing: FakeOutgoing
) -> None:
    copy.look(300)
    outgoing.error = TransferError("UNAVAILABLE", "gone")
    with pytest.raises(TransferError, match="gone"):
        copy.look(300)
    assert not engine.is_frozen
