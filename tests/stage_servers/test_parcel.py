from __future__ import annotations

import asyncio

import pytest
import torch

from stage_servers.cache.held import HeldEmbedding
from stage_servers.parcel import Parcel


def held_in(blocks: tuple[int, ...], ends: list[str]) -> HeldEmbedding:
    return HeldEmbedding(torch.ones(2, 3), lambda: ends.append("left"), blocks)


async def test_one_that_waits_for_long_leaves_its_blocks() -> None:
    ends: list[str] = []
    parcel = Parcel(held := held_in((1, 2), ends))
    await parcel.leave_blocks(0.0)
    assert ends == ["left"]
    held.embedding.zero_()
    assert torch.equal(parcel.take(), torch.ones(2, 3))
    parcel.release()
    assert ends == ["left"]


@pytest.mark.parametrize("blocks", [(), (1,)])
async def test_what_is_taken_or_lies_nowhere_stays(blocks: tuple[int, ...]) -> None:
    ends: list[str] = []
    parcel = Parcel(held := held_in(blocks, ends))
    if blocks:
        assert parcel.take() is held.embedding
    await parcel.leave_blocks(0.0)
    assert ends == []
    parcel.release()
    assert ends == ["left"]


async def test_what_is_taken_while_it_is_copied_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()

    async def slowly(work: object) -> torch.Tensor:
        del work
        await go_on.wait()
        return torch.zeros(2, 3)

    monkeypatch.setattr(asyncio, "to_thread", slowly)
    ends: list[str] = []
    parcel = Parcel(held_in((1,), ends))
    leaving = asyncio.create_task(parcel.leave_blocks(0.0))
    await asyncio.sleep(0.01)
    taken = parcel.take()
    go_on.set()
    await leaving
    assert ends == []
    assert torch.equal(taken, torch.ones(2, 3))
    parcel.release()
