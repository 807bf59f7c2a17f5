"""Either end may die at any time: bytes stay right, blocks come back, and nothing stays in shared memory."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict

import torch

from kv_transfer.pool import Pool
from kv_transfer.segment import SegmentOwner, reap_segments
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.children import Start
from tests.kv_transfer.in_place.child import digest
from tests.kv_transfer.in_place.lending import Producer, ReadingHost, embedding
from tests.kv_transfer.loopback import CLUSTER, EMBEDDING, Receive, segments, until


async def test_it_crosses_processes_and_goes_when_it_is_let_go_of(receive: Receive, begin: Start) -> None:
    peer = await receive(host=(host := ReadingHost()), is_shared=False)
    child = await begin("produce", json.dumps(asdict(peer.address)), cluster=CLUSTER)
    assert await child.hear() == {"is_taken": True, "free": 5}
    assert torch.equal(host.read[0].embedding, embedding())
    assert await child.ask("count") == {"free": 5}
    host.read[0].let_go()
    assert await child.ask("count") == {"free": 8}
    await child.finish()
    assert segments() == []


async def test_a_killed_producers_reader_goes_on_and_the_last_takes_its_names_away(
    receive: Receive, begin: Start
) -> None:
    peer = await receive(host=(host := ReadingHost(known={("a", 0), ("req-1", 0)})), is_shared=False)
    child = await begin("produce", json.dumps(asdict(peer.address)), cluster=CLUSTER)
    await child.hear()
    view = host.read[0].embedding
    beside = Pool(EMBEDDING, 2, owner=SegmentOwner(CLUSTER, "living", 3))
    await child.kill()
    peer.receiver.in_place.sweep()
    assert len(segments()) == 2
    assert torch.equal(view, embedding())
    host.read[0].let_go()
    await until(lambda: not peer.receiver.in_place._all)
    assert [path.name.split("-")[-3] for path in segments()] == ["living"]
    assert torch.equal(view, embedding())
    beside.close()


async def test_a_killed_producers_names_go_at_the_next_start_while_it_is_read(
    receive: Receive, begin: Start
) -> None:
    peer = await receive(host=(host := ReadingHost()), is_shared=False)
    child = await begin("produce", json.dumps(asdict(peer.address)), cluster=CLUSTER)
    await child.hear()
    await child.kill()
    await until(lambda: reap_segments(CLUSTER))
    assert segments() == []
    assert torch.equal(host.read[0].embedding, embedding())
    host.read[0].let_go()
    assert peer.receiver.in_place._all == []


async def test_a_dead_producer_that_nobody_reads_from_is_forgotten(receive: Receive, begin: Start) -> None:
    peer = await receive(host=(host := ReadingHost()), is_shared=False)
    child = await begin("produce", json.dumps(asdict(peer.address)), cluster=CLUSTER)
    await child.hear()
    host.read[0].let_go()
    await child.kill()
    await until(lambda: not peer.receiver.in_place._all)
    assert segments() == []


async def test_a_killed_readers_blocks_come_back(producer: Producer, begin: Start) -> None:
    child = await begin("read", "")
    peer = PeerAddress(**await child.hear())
    assert await producer.lend(peer, producer.make())
    assert await child.hear() == {"digest": digest(embedding())}
    assert producer.num_free == 5
    await child.kill()
    await until(lambda: producer.num_free == 8)


async def test_a_reader_that_stands_still_keeps_its_blocks(producer: Producer, begin: Start) -> None:
    child = await begin("read", "")
    peer = PeerAddress(**await child.hear())
    await producer.lend(peer, producer.make())
    await child.hear()
    await child.stop()
    assert producer.num_free == 5
    child.go_on()
    assert await child.ask("read") == {"digest": digest(embedding())}
    await child.finish()
    assert producer.num_free == 8


async def test_a_reader_cannot_write(producer: Producer, begin: Start) -> None:
    child = await begin("read", "")
    peer = PeerAddress(**await child.hear())
    made = producer.make()
    await producer.lend(peer, made)
    await child.hear()
    child.tell("write")
    assert await child.wait() == -signal.SIGSEGV
    assert torch.equal(producer.pool.read_tokens(made.blocks, 40), embedding())
    await until(lambda: producer.num_free == 8)
