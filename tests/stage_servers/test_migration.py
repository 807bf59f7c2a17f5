"""A sequence moves, or stays exactly where it was, whatever fails."""

from __future__ import annotations

import asyncio

import pytest

from kv_transfer.errors import UnknownRequest
from stage_servers.engine.model import Model
from tests.stage_servers.part import until
from tests.stage_servers.two import MAX_TOKENS, Two, ask, shorten


async def test_it_moves(two: Two) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    report = await two.report()
    assert report.has_moved
    assert report.transport == "grpc"
    assert report.pause_ns > 0
    await two.ended()
    two.assert_exact()
    num_here = two.source.num_tokens(two.spec)
    kept = len(two.spec.prompt) + num_here - 1
    assert report.size_bytes == kept * two.source.kv.layout.pool_bytes(1) // 16
    assert 5 <= num_here < MAX_TOKENS
    assert two.source.reported[-2:] == ["stage", "migration"]


async def test_it_comes_back(two: Two, model: Model) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    assert (await two.report()).has_moved
    await until(lambda: two.target.num_tokens(two.moved_spec) > 3)
    again = ask(model, attempt=3)
    two.source.instance.decode(again)
    two.target.instance.migrate(two.moved_spec.key, 3, two.source.address)
    await until(lambda: two.target.migrations and two.source.num_tokens(again) and two.num_made)
    assert two.target.migrations[0].has_moved
    await until(lambda: two.num_made + two.source.num_tokens(again) == MAX_TOKENS)
    assert two.made + two.source.tokens[again.key] == list(enumerate(two.expected))
    await until(lambda: two.source.is_free and two.target.is_free)


async def stays(two: Two, reason: str) -> None:
    report = await two.report()
    assert not report.has_moved
    assert reason in report.reason
    two.target.instance.cancel_soon(two.moved_spec.key)  # as the coordinator does
    await two.ended()
    two.assert_exact()
    assert not two.target.tokens


async def test_no_room(two: Two) -> None:
    shorten(two, open_s=0.1)
    held = two.target.kv.blocks.allocate(63)
    await two.decoding(20)
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await two.report()
    two.target.kv.blocks.release(held)
    await stays(two, "no room within 0.1 s")


async def test_the_target_cannot_be_reached(two: Two) -> None:
    await two.decoding()
    two.migrate(endpoint="127.0.0.1:1")
    await stays(two, "UNAVAILABLE")


async def test_the_target_lives_another_life(two: Two) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate(epoch=99)
    await stays(two, "receiver_epoch")


async def test_the_target_was_told_to_forget_it(two: Two) -> None:
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    await two.target.instance.cancel(two.moved_spec.key)
    two.migrate()
    await stays(two, "has ended here")


async def test_the_commit_is_refused(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnknownRequest("gone since")

    monkeypatch.setattr(two.target.instance, "on_kv", refuse)
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await stays(two, "gone since")
    # Tokens made after the sequence went on are told after the report.
    place = two.source.reported.index("migration")
    assert "step" in two.source.reported[place:]


async def test_the_commit_is_not_answered(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(two, commit_s=0.2)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(two.source.sender, "commit_lease", never)
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await stays(two, "did not confirm within 0.2 s")


async def test_the_sequence_ends_meanwhile(two: Two) -> None:
    await two.decoding()
    two.migrate()  # waits for the target to know of it
    await until(lambda: two.source.num_tokens(two.spec) == MAX_TOKENS)
    two.target.instance.decode(two.moved_spec)
    await stays(two, "not here")


async def test_the_sequence_is_cancelled_meanwhile(two: Two) -> None:
    await two.decoding()
    two.migrate()
    await asyncio.sleep(0)
    await two.source.instance.cancel(two.spec.key)
    await two.target.instance.cancel(two.moved_spec.key)
    await until(lambda: two.source.is_free and two.target.is_free)
    assert not two.source.migrations
    two.source.assert_nothing_is_held()
    two.target.assert_nothing_is_held()


async def test_cancelled_while_it_stands_still(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = asyncio.Event()

    async def hang(*_: object) -> None:
        frozen.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(two.source.sender, "commit_lease", hang)
    await two.decoding()
    two.target.instance.decode(two.moved_spec)
    two.migrate()
    await asyncio.wait_for(frozen.wait(), 60)
    await two.source.instance.cancel(two.spec.key)
    await two.target.instance.cancel(two.moved_spec.key)
    await until(lambda: two.source.is_free and two.target.is_free)
    assert not two.source.migrations


async def test_what_does_not_decode_here(two: Two) -> None:
    two.source.instance.migrate(("nobody", 1), 2, two.target.address)
    await until(lambda: two.source.migrations)
    assert "not here" in two.source.migrations.pop().reason
    await two.decoding()
    await two.source.instance.cancel(two.spec.key)


async def test_a_second_order_for_the_same_sequence(two: Two) -> None:
    await two.decoding()
    two.migrate()
    two.source.instance.migrate(two.spec.key, 9, two.target.address)
    await until(lambda: two.source.migrations)
    second = two.source.migrations.pop()
    assert (second.new_attempt, second.has_moved) == (9, False)
    assert "already" in second.reason
    two.target.instance.decode(two.moved_spec)
    assert (await two.report()).has_moved
    await two.ended()
    two.assert_exact()
