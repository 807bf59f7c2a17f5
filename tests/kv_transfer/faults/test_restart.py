"""A receiver that was killed comes back under the same address, with an empty pool and a new epoch."""

from __future__ import annotations

import pytest

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.segment import reap_segments
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Child, Start, receiving
from tests.kv_transfer.faults.survivors import BLOCKS, send
from tests.kv_transfer.loopback import CLUSTER, HERE, KEY, MakeSender, segments

pytestmark = pytest.mark.cluster


async def test_its_earlier_life_is_refused_and_the_new_one_is_reached(
    peer: tuple[Child, PeerAddress], start: Start, sender_with: MakeSender, source: Pool
) -> None:
    child, earlier = peer
    senders = {transport: sender_with(transport) for transport in HERE}
    transfers = []
    for attempt, sender in enumerate(senders.values()):
        await send(sender, earlier, source, ("before", attempt))
        transfers.append(await sender.open(earlier, (KEY[0], attempt), PayloadKind.KV, 0, 20, source))
        transfers[-1].push(0, 20, range(3), BLOCKS)
    await child.kill()
    port = int(earlier.endpoint.rpartition(":")[2])
    child, later = await receiving(start, CLUSTER, port=port, checksums=True)
    assert (later.endpoint, later.epoch == earlier.epoch) == (earlier.endpoint, False)

    for outgoing in transfers:
        outgoing.push(0, 20, range(3, 6), BLOCKS)
        with pytest.raises(TransferError):
            await outgoing.commit(20)
    for transport, sender in senders.items():
        with pytest.raises(TransferError, match=f"receiver_epoch: {earlier.epoch} is not this life"):
            await send(sender, earlier, source, KEY)
        await send(sender, later, source, ("after", 0))
        assert sender.counters()[-1].transport == transport
        assert await child.hear() == {"digest": digest(source, list(BLOCKS), 20), "outputs": []}
        sender.check_idle()
    assert await child.finish() == {"free": 32}
    assert len(segments()) == len(reap_segments(CLUSTER)) == 2
