"""A prefix is asked for once, waited for no longer than it is worth, and whatever fails is computed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from kv_transfer.errors import TransferError, UnknownRequest
from kv_transfer.sender import PeerAddress
from stage_servers.cache.pulling import PrefixPulls
from tests.kv_transfer.loopback import FINGERPRINT, KV, until
from tests.stage_servers.cache.fakes import BLOCK, HERE, PEER, FakePeer, FakeStore, Thread, key_of, spec_of


class Asker:
    """Pulls of one instance whose cache and peer are played."""

    def __init__(self, timeout_s: float = 30.0, **store: float | None) -> None:
        self.store, self.peer = FakeStore(**store), FakePeer()  # type: ignore[arg-type]
        self.pulls = PrefixPulls(
            self.store,
            Thread(),  # type: ignore[arg-type]
            self.peer,  # type: ignore[arg-type]
            self.peer,  # type: ignore[arg-type]
            layout=KV,
            address=lambda: HERE,
            timeout_s=timeout_s,
        )
        self.peer.came = self.pulls.came

    def fetching(self, name: str = "r", num_blocks: int = 4, *, holder: PeerAddress = PEER) -> Fetch:
        return asyncio.create_task(self.pulls.fetch(spec_of(name, num_blocks), holder, 4 * BLOCK))

    async def asked(self, times: int = 1) -> None:
        await until(lambda: len(self.peer.asked) == times)

    async def waiting(self, count: int) -> None:
        """So many for the one pull."""
        await until(lambda: [pull.num_waiting for pull in self.pulls._pulls.values()] == [count])

    def check_idle(self) -> None:
        self.pulls.check_idle()
        assert self.peer.released == [request.key for request in self.peer.asked]


Fetch = asyncio.Task[None]


@pytest.fixture
def asker() -> Asker:
    return Asker()


@pytest.mark.parametrize("num_here", [0, 3])
async def test_what_is_missing_is_asked_for_and_taken_in(num_here: int) -> None:
    asker = Asker(num_blocks=num_here)
    asker.peer.may_answer.set()
    await asker.fetching()
    [request] = asker.peer.asked
    keys = tuple(key_of(number * BLOCK) for number in range(num_here + 1, 5))
    assert (request.block_keys, request.first_token) == (keys, num_here * BLOCK)
    assert (request.block_tokens, request.model_fingerprint) == (BLOCK, FINGERPRINT)
    assert (request.asker, request.holder_epoch) == (HERE, PEER.epoch)
    assert asker.store.adopted == [(keys, list(range(4 - num_here)))]
    asker.check_idle()


async def test_what_is_here_is_not_asked_for() -> None:
    asker = Asker(num_blocks=4)
    await asker.fetching()
    assert asker.peer.asked == []


async def test_nobody_asks_itself(asker: Asker) -> None:
    await asker.fetching(holder=replace(PEER, instance_id=HERE.instance_id))
    assert asker.peer.asked == []


async def test_without_time_nobody_is_asked() -> None:
    asker = Asker(timeout_s=0)
    await asker.fetching()
    assert asker.peer.asked == []


async def test_those_who_want_the_same_wait_for_one(asker: Asker) -> None:
    fetching = [asker.fetching(name) for name in "abc"]
    await asker.waiting(3)
    asker.peer.may_answer.set()
    await asyncio.gather(*fetching)
    assert len(asker.peer.asked) == len(asker.store.adopted) == 1
    asker.check_idle()


async def test_who_wants_more_asks_for_the_rest(asker: Asker) -> None:
    first = asker.fetching("a", 2)
    await asker.waiting(1)
    second = asker.fetching("b", 4)
    await asker.waiting(2)
    asker.peer.may_answer.set()
    await asyncio.gather(first, second)
    assert [(len(each.block_keys), each.first_token) for each in asker.peer.asked] == [(2, 0), (2, 2 * BLOCK)]
    assert asker.store.num_blocks == 4
    asker.check_idle()


async def test_one_who_leaves_leaves_the_others_theirs(asker: Asker) -> None:
    first, second = asker.fetching("a"), asker.fetching("b")
    await asker.waiting(2)
    first.cancel()
    await asker.waiting(1)
    asker.peer.may_answer.set()
    await second
    assert first.cancelled()
    assert (asker.peer.left, asker.store.num_blocks) == (0, 4)
    asker.check_idle()


async def test_the_last_who_leaves_ends_it(asker: Asker) -> None:
    fetching = [asker.fetching(name) for name in "ab"]
    await asker.waiting(2)
    for each in fetching:
        each.cancel()
    await asyncio.wait(fetching)
    assert asker.peer.left == 1
    asker.check_idle()
    assert asker.store.adopted == []


async def test_what_is_being_ended_is_not_joined(asker: Asker) -> None:
    first = asker.fetching("a")
    await asker.asked()
    first.cancel()
    second = asker.fetching("b")
    await asker.asked(2)
    asker.peer.may_answer.set()
    await second
    assert asker.store.num_blocks == 4
    asker.check_idle()


@pytest.mark.parametrize("error", [TransferError("UNAVAILABLE", "it is gone"), ValueError("unexpected")])
async def test_what_fails_is_computed(
    asker: Asker, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    asker.peer.error = error  # type: ignore[assignment]
    asker.peer.may_answer.set()
    await asyncio.gather(asker.fetching("a"), asker.fetching("b"))
    assert len(asker.peer.asked) == 1
    assert asker.store.adopted == []
    assert str(error) in caplog.text
    asker.check_idle()


async def test_nothing_is_there_any_more(asker: Asker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    asker.peer.has_blocks = 0
    asker.peer.may_answer.set()
    await asyncio.gather(asker.fetching("a"), asker.fetching("b"))
    assert "a has nothing of it any more" in caplog.text
    assert len(asker.peer.asked) == 1
    asker.check_idle()


async def test_an_answer_that_is_lost_loses_nothing_that_came(asker: Asker) -> None:
    asker.peer.is_answer_lost = True
    asker.peer.may_answer.set()
    await asker.fetching()
    assert asker.store.num_blocks == 4
    asker.check_idle()


@pytest.mark.parametrize("bounds", [{"timeout_s": 0.01}, {"compute_s": 0.01}], ids=str)
async def test_nobody_waits_longer_than_it_is_worth(
    bounds: dict[str, float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    asker = Asker(**bounds)
    monkeypatch.setattr(asker.pulls, "_timeout_s", bounds.get("timeout_s", 30.0))
    monkeypatch.setattr(asker.peer, "pull_prefix", _never)
    await asker.fetching()
    assert "did not push it within 0.01 s" in caplog.text
    asker.pulls.check_idle()


async def test_a_turn_that_the_holder_does_not_interrupt_is_waited_for() -> None:
    """As long as the longest here."""
    asker = Asker(compute_s=0.01)
    asker.pulls._thread.longest_turn_s = 30.0
    fetching = asker.fetching()
    await asker.asked()
    await asyncio.sleep(0.05)
    assert not fetching.done()
    asker.peer.may_answer.set()
    await fetching
    assert asker.store.num_blocks == 4
    asker.check_idle()


async def _never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_what_nobody_waits_for_is_refused(asker: Asker) -> None:
    with pytest.raises(UnknownRequest, match="nobody here waits for r prefix 7"):
        asker.pulls.expect(("r prefix 7", 0), BLOCK)
    with pytest.raises(UnknownRequest):
        asker.pulls.came(("r prefix 7", 0), [1], BLOCK)


async def test_what_was_not_asked_for_is_refused(asker: Asker) -> None:
    fetching = asker.fetching()
    await asker.asked()
    key = asker.peer.asked[0].key
    asker.pulls.expect(key, 4 * BLOCK)
    with pytest.raises(ValueError, match=f"num_tokens: {5 * BLOCK}, the pull wants {4 * BLOCK}"):
        asker.pulls.expect(key, 5 * BLOCK)
    with pytest.raises(ValueError, match="are not whole blocks"):
        asker.pulls.came(key, [1], BLOCK - 1)
    asker.peer.may_answer.set()
    await fetching


async def test_stopping_ends_all(asker: Asker) -> None:
    fetching = asker.fetching()
    await asker.asked()
    await asker.pulls.stop()
    await asyncio.wait([fetching])
    assert asker.peer.left == 1
    asker.check_idle()
