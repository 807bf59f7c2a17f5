"""Bytes change on their way to another process: the transfer fails and says why, both processes go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kv_transfer.descriptors import copies
from kv_transfer.errors import TransferError
from kv_transfer.pool import Pool
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.collective.groups import GlooLane, Wait
from kv_transfer.transports.shm import ShmWriter
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Start, receiving
from tests.kv_transfer.faults.link import Link
from tests.kv_transfer.faults.survivors import BLOCKS, send
from tests.kv_transfer.loopback import CLUSTER, KEY, MakeSender

pytestmark = pytest.mark.cluster


def in_copies(patch: pytest.MonkeyPatch, link: Link, source: Pool) -> None:
    del link, source
    copy = ShmWriter._copy

    def bad(self: ShmWriter, batch: Batch) -> None:
        copy(self, batch)
        assert self._pool is not None
        there = self._target.runs(batch.first_token, batch.num_tokens)
        first = next(
            iter(
                copies(self._here, batch.source.runs(batch.first_token, batch.num_tokens), self._there, there)
            )
        )
        target = self._there.view(self._pool.memory, batch.planes, first.target)
        target[(0,) * target.ndim] ^= 1

    patch.setattr(ShmWriter, "_copy", bad)


def in_payloads(patch: pytest.MonkeyPatch, link: Link, source: Pool) -> None:
    del link, source
    right = GlooLane.send

    def bad(self: GlooLane, tensor: torch.Tensor, tag: int) -> Wait:
        tensor[0] ^= 1
        return right(self, tensor, tag)

    patch.setattr(GlooLane, "send", bad)


def on_the_wire(patch: pytest.MonkeyPatch, link: Link, source: Pool) -> None:
    token = source.read_tokens(BLOCKS, 20)[7].numpy().tobytes()
    changed = bytes([token[0] ^ 1]) + token[1:]
    patch.setattr(link, "change", lambda data: data.replace(token, changed))


CHANGES = [("shm", in_copies), ("collective", in_payloads), ("grpc", on_the_wire)]


@pytest.mark.parametrize(("transport", "change"), CHANGES, ids=[name for name, _ in CHANGES])
async def test_a_changed_byte(
    transport: str,
    change: Callable[[pytest.MonkeyPatch, Link, Pool], None],
    start: Start,
    sender_with: MakeSender,
    source: Pool,
    link: Link,
) -> None:
    child, address = await receiving(start, CLUSTER, checksums=True)
    address = await link.reach(address)
    sender = sender_with(transport)
    with pytest.MonkeyPatch.context() as patch:
        change(patch, link, source)
        with pytest.raises(TransferError, match="of 5 blocks are not as they were sent") as caught:
            await send(sender, address, source, KEY)
    assert caught.value.cause == "CHECKSUM"
    [pair] = sender.counters()
    assert (pair.transport, pair.failures, pair.committed, pair.in_flight) == (
        transport,
        {"CHECKSUM": 1},
        0,
        0,
    )
    await send(sender, address, source, KEY)
    assert await child.hear() == {"digest": digest(source, list(BLOCKS), 20), "outputs": []}
    assert await child.finish() == {"free": 32}
