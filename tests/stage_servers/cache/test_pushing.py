"""What a peer asks for is pinned while it is pushed, and unpinned however that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kv_transfer.errors import TransferError
from kv_transfer.pool import Pool
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from stage_servers.cache.pushing import PrefixPushes
from tests.kv_transfer.loopback import FINGERPRINT, KV, until
from tests.stage_servers.cache.fakes import HERE, FakeStore, Thread, key_of


@dataclass
class Outgoing:
    """Also its sender."""

    transport: str = "shm"
    opened: list[dict[str, Any]] = field(default_factory=list)
    pushed: list[tuple[int, int, range, Sequence[int]]] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    num_aborts: int = 0
    refusal: TransferError | None = None
    may_commit: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, peer: object, key: object, *what: object, **options: object) -> Outgoing:
        if self.refusal is not None:
            raise self.refusal
        self.opened.append({"peer": peer, "key": key, "num_tokens": what[2], **options})
        return self

    def push(self, first_token: int, num_tokens: int, planes: range, blocks: Sequence[int]) -> None:
        self.pushed.append((first_token, num_tokens, planes, blocks))

    async def commit(self, num_tokens: int) -> None:
        await self.may_commit.wait()
        self.committed.append(num_tokens)

    async def abort(self, reason: str) -> None:
        del reason
        self.num_aborts += 1


class Holder:
    """Pushes of one instance, whose cache has the first 12 tokens in blocks of `block_tokens`."""

    def __init__(self, block_tokens: int = 4, thread: Thread | None = None) -> None:
        self.store = FakeStore(num_blocks=12 // block_tokens, block_tokens=block_tokens)
        self.outgoing = Outgoing()
        self.pushes = PrefixPushes(
            self.store,
            thread or Thread(),  # type: ignore[arg-type]
            Pool(replace(KV, block_tokens=block_tokens), 8),
            self.outgoing,  # type: ignore[arg-type]
        )

    def pushing(self, *ends: int, block_tokens: int = 4) -> asyncio.Task[PushedPrefix]:
        request = PrefixRequest(
            key=("r prefix 1", 0),
            block_keys=tuple(map(key_of, ends)),
            first_token=ends[0] - block_tokens,
            block_tokens=block_tokens,
            model_fingerprint=FINGERPRINT,
            asker=HERE,
            holder_epoch=3,
        )
        return asyncio.create_task(self.pushes.push(request))

    def assert_nothing_is_held(self) -> None:
        self.pushes.check_idle()
        assert self.store.pinned == []
        assert self.outgoing.num_aborts == len(self.outgoing.opened)


@pytest.mark.parametrize(
    ("block_tokens", "ends", "num_tokens", "skip_tokens", "blocks"),
    [
        (4, (4, 8, 12, 16), 12, 0, (0, 1, 2)),
        (4, (12, 16), 4, 8, (0, 1, 2)),
        (2, (8, 12), 8, 4, (0, 1, 2, 3, 4, 5)),  # the asker's blocks are longer
        (6, (4, 8, 12), 12, 0, (0, 1)),  # the holder's are
        (6, (8, 12), 8, 4, (0, 1)),
    ],
)
async def test_what_is_here_is_pushed(
    block_tokens: int, ends: tuple[int, ...], num_tokens: int, skip_tokens: int, blocks: tuple[int, ...]
) -> None:
    holder = Holder(block_tokens)
    holder.outgoing.may_commit.set()
    assert await holder.pushing(*ends) == PushedPrefix(num_tokens, "shm")
    [opened] = holder.outgoing.opened
    assert opened == {
        "peer": HERE,
        "key": ("r prefix 1", 0),
        "num_tokens": len(ends) * 4,  # all that was asked for
        "is_prefix": True,
        "skip_tokens": skip_tokens,
    }
    assert holder.outgoing.pushed == [(0, num_tokens, range(6), blocks)]
    assert holder.outgoing.committed == [num_tokens]
    holder.assert_nothing_is_held()


@pytest.mark.parametrize(("block_tokens", "ends"), [(4, (16, 20)), (6, (4, 8)), (6, (4,))])
async def test_nothing_is_here(block_tokens: int, ends: tuple[int, ...]) -> None:
    holder = Holder(block_tokens)
    assert await holder.pushing(*ends) == PushedPrefix(0)
    assert (holder.outgoing.pushed, holder.outgoing.committed) == ([], [])
    holder.assert_nothing_is_held()


async def test_what_does_not_fill_the_askers_blocks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a part of what is here has no room on the device."""
    holder = Holder(block_tokens=2)
    holder.outgoing.may_commit.set()
    monkeypatch.setattr(holder.store, "pin", lambda _: holder.store.pin_tokens(6))
    assert await holder.pushing(4, 8, 12) == PushedPrefix(4, "shm")
    holder.assert_nothing_is_held()


async def test_an_asker_that_takes_nothing() -> None:
    holder = Holder()
    holder.outgoing.refusal = TransferError("NOT_FOUND", "nobody waits for it")
    with pytest.raises(TransferError, match="nobody waits"):
        await holder.pushing(4, 8)
    holder.assert_nothing_is_held()


async def test_an_asker_that_leaves() -> None:
    holder = Holder()
    pushing = holder.pushing(4, 8)
    await until(lambda: holder.outgoing.pushed)
    assert len(holder.store.pinned) == 1
    pushing.cancel()
    await asyncio.wait([pushing])
    holder.assert_nothing_is_held()
    assert holder.outgoing.committed == []


async def test_an_asker_that_leaves_while_its_blocks_are_pinned() -> None:
    """The engine thread is at it, and nobody is there to be told."""

    class Slow(Thread):
        async def call(self, function: Callable[[], Any]) -> Any:
            function()
            await asyncio.Event().wait()

    holder = Holder(thread=Slow())
    pushing = holder.pushing(4, 8)
    await until(lambda: holder.store.pinned)
    pushing.cancel()
    await asyncio.wait([pushing])
    holder.assert_nothing_is_held()


async def test_a_step_at_hand_is_waited_for_once() -> None:
    num_calls = 0

    class Counting(Thread):
        async def call(self, function: Callable[[], Any]) -> Any:
            nonlocal num_calls
            num_calls += 1
            return await super().call(function)

    holder = Holder(thread=Counting())
    holder.outgoing.may_commit.set()
    assert await holder.pushing(4, 8) == PushedPrefix(8, "shm")
    assert num_calls == 1


async def test_blocks_stay_pinned_until_nothing_is_written_any_more() -> None:
    holder = Holder()
    order: list[str] = []
    abort, unpin = holder.outgoing.abort, holder.store.unpin

    async def aborted(reason: str) -> None:
        await asyncio.sleep(0)
        await abort(reason)
        order.append("aborted")

    holder.outgoing.abort = aborted  # type: ignore[method-assign]
    holder.store.unpin = lambda pinned: (order.append("unpinned"), unpin(pinned))[1]  # type: ignore[method-assign]
    pushing = holder.pushing(4, 8)
    await until(lambda: holder.outgoing.pushed)
    pushing.cancel()
    await asyncio.wait([pushing])
    assert order == ["aborted", "unpinned"]


async def test_stopping_ends_all() -> None:
    holder = Holder()
    pushing = [holder.pushing(4, 8), holder.pushing(4)]
    await until(lambda: len(holder.outgoing.pushed) == 2)
    await holder.pushes.stop()
    await asyncio.wait(pushing)
    holder.assert_nothing_is_held()
