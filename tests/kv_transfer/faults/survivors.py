"""What the fault tests ask of the end that lives on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key, Lease
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress, Sender
from tests.kv_transfer.loopback import Receiving, until

BLOCKS = (3, 9, 10, 0, 7)  # of the source, 20 tokens and more


async def send(
    sender: Sender, address: PeerAddress, source: Pool, key: Key, blocks: Sequence[int] = BLOCKS
) -> None:
    """20 tokens, plane by plane; raises TransferError."""
    outgoing = await sender.open(address, key, PayloadKind.KV, 0, 20, source)
    for plane in range(6):
        outgoing.push(0, 20, range(plane, plane + 1), blocks)
    await outgoing.commit(20)


def planes_written(pool: Pool, lease: Lease) -> list[int]:
    """Those whose last token holds something."""
    num_planes, tokens = pool.layout.num_planes, lease.num_tokens
    return [
        plane
        for plane in range(num_planes)
        if pool.read_tokens(lease.block_ids, tokens, plane=plane)[-1].any()
    ]


def threads(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if name in thread.name]


async def assert_senders_are_whole(senders: Iterable[Sender]) -> None:
    """Nothing is open or counted as such, and threads of lost pairs are over."""
    for sender in senders:
        sender.check_idle()
        assert all(pair.in_flight == 0 for pair in sender.counters())
    await until(lambda: not threads("kv-collective-send"))


def assert_sent(peer: Receiving, source: Pool, blocks: Sequence[int] = BLOCKS) -> None:
    """The one transfer that was handed over is byte-exact, and all blocks go back with its."""
    [(_, there, num_tokens, _)] = peer.host.kv
    for plane in range(6):
        arrived = peer.kv.read_tokens(there, num_tokens, plane=plane)
        assert arrived.equal(source.read_tokens(blocks, num_tokens, plane=plane))
    peer.kv.blocks.release(there)
    peer.host.kv.clear()
    peer.assert_nothing_is_held()
