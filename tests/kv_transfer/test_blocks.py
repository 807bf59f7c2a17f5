"""Block accounting holds under any sequence of calls."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kv_transfer.blocks import BlockAllocator, OutOfBlocks, blocks_for


class Accounting(RuleBasedStateMachine):
    """Compares the allocator with a plain list of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = BlockAllocator(8)
        self.held: list[list[int]] = []

    @rule(count=st.integers(0, 10))
    def allocate(self, count: int) -> None:
        if count > self.allocator.num_free:
            with pytest.raises(OutOfBlocks):
                self.allocator.allocate(count)
            return
        taken = self.allocator.allocate(count)
        assert len(set(taken)) == count
        assert not set(taken) & {block for holder in self.held for block in holder}
        self.held.append(taken)

    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        if self.held:
            holder = data.draw(st.sampled_from(self.held))
            self.allocator.share(holder)
            self.held.append(list(holder))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            index = data.draw(st.integers(0, len(self.held) - 1))
            self.allocator.release(self.held.pop(index))

    @invariant()
    def counts_agree(self) -> None:
        self.allocator.check_integrity()
        holders = [block for holder in self.held for block in holder]
        assert self.allocator.num_free == 8 - len(set(holders))
        assert all(self.allocator.references(block) == holders.count(block) for block in range(8))


TestAccounting = Accounting.TestCase


def test_release_of_more_than_was_taken_changes_nothing() -> None:
    allocator = BlockAllocator(2)
    blocks = allocator.allocate(2)
    with pytest.raises(ValueError, match="is not referred to"):
        allocator.release([blocks[0], blocks[1], blocks[1]])
    assert allocator.num_free == 0
    allocator.release(blocks)
    assert allocator.num_free == 2


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_blocks_for(tokens: int, expected: int) -> None:
    assert blocks_for(tokens, 16) == expected


def test_who_could_do_without_blocks_is_asked_for_them() -> None:
    blocks = BlockAllocator(4)
    spare = blocks.allocate(3)
    blocks.call_when_short(lambda count: blocks.release(spare[:count]))
    with pytest.raises(OutOfBlocks):
        blocks.allocate(4)
    blocks.ask_for(4)
    assert len(blocks.allocate(4)) == 4
