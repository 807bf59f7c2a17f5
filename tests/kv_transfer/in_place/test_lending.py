"""What a producer lends is read where it lies, and stays until nobody reads it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch

from core.ids import host_id
from kv_transfer.in_place import calls
from kv_transfer.pace import PacedLink
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.in_place.lending import Producer, ReadingHost, embedding
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, RecordingHost, until


async def test_it_is_read_where_it_lies_until_it_is_let_go_of(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost()))
    assert await producer.lend(peer.address, producer.make())
    [reading] = host.read
    assert (reading.key, reading.item_index) == (KEY, 2)
    assert torch.equal(reading.embedding, embedding())
    assert producer.num_free == 5
    with pytest.raises(AssertionError, match="3 blocks are lent"):
        producer.lender.check_idle()
    reading.let_go()
    assert producer.num_free == 8
    peer.assert_nothing_is_held()
    assert peer.receiver.in_place.num_read == 0


async def test_no_byte_is_copied(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost()))
    made = producer.make()
    assert await producer.lend(peer.address, made)
    producer.pool.fill(made.blocks, embedding(9))
    assert torch.equal(host.read[0].embedding, embedding(9))
    host.read[0].let_go()


async def test_what_several_read_stays_until_the_last_has_let_go(
    receive: Receive, producer: Producer
) -> None:
    peer = await receive(host=(host := ReadingHost(known={(name, 0) for name in "ab"})))
    made = producer.make()
    for name in "ab":
        made.share()
        assert await producer.lend(peer.address, made, (name, 0))
    made.release()
    host.read[0].let_go()
    assert producer.num_free == 5
    host.read[1].let_go()
    assert producer.num_free == 8


async def test_blocks_come_back_when_the_pool_is_short(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost()))
    await producer.lend(peer.address, producer.make())
    host.read[0].let_go()
    assert producer.pool.blocks.num_free == 5
    producer.pool.blocks.ask_for(8)
    assert producer.pool.blocks.num_free == 8


async def test_an_offer_waits_for_the_request(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost(known=set())))
    lending = asyncio.create_task(producer.lend(peer.address, producer.make()))
    await until(lambda: host.expected)
    assert not lending.done()
    await host.learn(KEY)
    assert await lending
    host.read[0].let_go()


async def test_an_offer_that_is_given_up_is_never_taken(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost(known=set())))
    lending = asyncio.create_task(producer.lend(peer.address, producer.make()))
    await until(lambda: host.expected)
    lending.cancel()
    await asyncio.wait([lending])
    assert producer.num_free == 8
    await host.learn(KEY)
    producer.lender.check_idle()
    assert host.read == []


async def test_one_that_is_taken_as_it_is_withdrawn_is_refused(receive: Receive, producer: Producer) -> None:
    """The reader asks for the lock when the producer has looked already."""
    peer = await receive(host=(host := ReadingHost()))
    offers = []
    reader = peer.receiver.in_place
    take = reader.take

    async def late(offer: object) -> bool:
        offers.append(offer)
        return False

    reader.take = late  # type: ignore[method-assign, assignment]
    assert not await producer.lend(peer.address, producer.make())
    assert not await take(offers[0])  # type: ignore[arg-type]
    assert host.read == []
    assert (reader.num_read, producer.num_free) == (0, 8)


async def test_a_request_that_is_gone_leaves_no_lease(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=ReadingHost(refuses=True))
    assert not await producer.lend(peer.address, producer.make())
    assert (peer.receiver.in_place.num_read, producer.num_free) == (0, 8)


async def test_a_peer_that_does_not_answer_in_time_is_sent_it(
    receive: Receive, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "OFFER_TIMEOUT_S", 0.05)
    peer = await receive(host=ReadingHost(known=set()))
    assert not await producer.lend(peer.address, producer.make())
    assert producer.num_free == 8


async def test_who_does_not_read_in_place_is_asked_once(receive: Receive, sender_with: MakeSender) -> None:
    producer = Producer(sender := sender_with())
    peer = await receive(host=(host := RecordingHost()))
    for _ in range(2):
        assert not await producer.lend(peer.address, producer.make())
    assert (host.expected, producer.num_free) == ([], 8)
    assert not sender.in_place.may_reach(peer.address)
    producer.close()


async def test_what_cannot_be_read_in_place_is_not_offered(receive: Receive, sender_with: MakeSender) -> None:
    peer = await receive(host=(host := ReadingHost()))
    away = replace(peer.address, host_id="another")
    paced = sender_with(link=PacedLink.__new__(PacedLink))
    cases = [
        (sender_with(), True, away),
        (sender_with(), False, peer.address),
        (sender_with("grpc"), True, peer.address),
        (paced, True, peer.address),
    ]
    for sender, is_shared, address in cases:
        producer = Producer(sender, is_shared=is_shared)
        assert not await producer.lend(address, producer.make())
        producer.close()
    assert host.expected == []


async def test_scattered_blocks_are_not_lent(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=ReadingHost())
    made = producer.make()
    made.blocks = [made.blocks[0], *made.blocks[:0:-1]]
    assert not await producer.lend(peer.address, made)


async def test_at_most_half_of_the_pool_is_lent(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost()))
    assert await producer.lend(peer.address, producer.make())
    assert not await producer.lend(peer.address, producer.make())
    host.read[0].let_go()
    assert producer.num_free == 8
    assert await producer.lend(peer.address, producer.make())
    host.read[1].let_go()


async def test_another_life_of_the_reader_is_not_lent_to(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost()))
    assert not await producer.lend(replace(peer.address, epoch=8), producer.make())
    assert (host.expected, producer.num_free) == ([], 8)


async def test_a_mapping_serves_many_offers_of_its_producers_life(
    receive: Receive, sender_with: MakeSender
) -> None:
    peer = await receive(host=(host := ReadingHost()))
    reader, sender = peer.receiver.in_place, sender_with()
    lives = [Producer(sender)]
    assert await lives[0].lend(peer.address, lives[0].make())
    host.read[0].let_go()
    [mapping] = reader._all
    assert await lives[0].lend(peer.address, lives[0].make())
    assert reader._all == [mapping]
    lives[0].close()
    lives.append(Producer(sender, epoch=6))
    assert await lives[1].lend(peer.address, lives[1].make(3))
    assert len(reader._all) == 2
    for reading, seed in zip(host.read[1:], (1, 3), strict=True):
        assert torch.equal(reading.embedding, embedding(seed))
    host.read[1].let_go()
    assert mapping not in reader._all
    host.read[2].let_go()
    lives[1].close()


async def test_a_segment_of_another_life_is_not_read(receive: Receive, producer: Producer) -> None:
    peer = await receive(host=(host := ReadingHost()))
    assert producer.pool.segment is not None
    producer.pool.segment.record = replace(producer.pool.segment.record, epoch=99)
    assert not await producer.lend(peer.address, producer.make())
    assert (host.read, producer.num_free) == ([], 8)


async def test_a_peer_that_is_gone_is_no_error(producer: Producer) -> None:
    gone = PeerAddress("gone", "127.0.0.1:1", host_id(), 1)
    assert not await producer.lend(gone, producer.make())
    assert producer.num_free == 8
