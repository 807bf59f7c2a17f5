"""A prompt that another instance has answered is not computed again; whatever fails, tokens are the same."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from core.families import load_family
from core.sequence import CacheUse
from kv_transfer.segment import SHM_DIR, reap_segments
from kv_transfer.sender import PeerAddress
from stage_servers.cache.prefix_source import PrefixSource
from stage_servers.engine.model import Model
from tests.exactness import Question, make_question
from tests.kv_transfer.faults.survivors import planes_written
from tests.stage_servers.cache.peers import CLUSTER, Peers, ask, part, provide, question_of, stick
from tests.stage_servers.engine.harness import Bench, answer_all
from tests.stage_servers.part import Part, until


@pytest.fixture(params=["grpc", "shm"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(model: Model) -> list[int]:
    """The answer without caches."""
    bench, question = Bench(model), question_of(model)
    spec = ask(model, "plain", question)
    answer_all(bench, [spec], [question])
    return bench.tokens[spec.key]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made
    assert list(SHM_DIR.glob(f"elasticmm-{CLUSTER}-*")) == []


async def meet(
    stack: AsyncExitStack, model: Model, transport: str, expected: list[int], **options: object
) -> Peers:
    """`options` are of B."""
    a = await stack.enter_async_context(part(model, "a", transport))
    b = await stack.enter_async_context(part(model, "b", transport, epoch=2, **options))
    peers = Peers(a, b, question_of(model), expected)
    spec = ask(model, "a", peers.question)
    a.instance.prefill(spec, a.address)
    provide(a, spec, peers.question)
    await a.has_ended(spec)
    assert a.num_prefilled(spec) == len(spec.prompt)
    return peers


@pytest.fixture
async def peers(stack: AsyncExitStack, model: Model, transport: str, expected: list[int]) -> Peers:
    return await meet(stack, model, transport, expected)


def num_pulled(part: Part) -> int:
    assert part.cache is not None
    return part.cache.num_pulled


async def test_only_the_rest_is_computed(peers: Peers, transport: str) -> None:
    assert await peers.ask_b(peers.source()) == peers.whole_tokens > 0
    assert num_pulled(peers.b) == peers.whole_tokens // 16
    assert peers.a.sender.stats.of("b", transport).committed == 1
    assert await peers.ask_b(peers.source(), "b again") >= peers.whole_tokens
    assert peers.a.sender.stats.of("b", transport).committed == 1
    await peers.check_idle()


async def test_nobody_is_asked_if_nobody_is_named(peers: Peers) -> None:
    assert await peers.ask_b(None) == num_pulled(peers.b) == 0
    await peers.check_idle()


async def test_the_missing_part_is_pulled(peers: Peers, model: Model) -> None:
    """B has a shorter prompt that begins alike."""
    short = ask(model, "short", peers.question)
    short = replace(short, prompt=short.prompt[:90])
    peers.b.instance.prefill(short, peers.b.address)
    provide(peers.b, short, peers.question)
    await peers.b.has_ended(short)
    assert await peers.ask_b(peers.source()) == peers.whole_tokens
    assert num_pulled(peers.b) == peers.whole_tokens // 16 - 90 // 16
    await peers.check_idle()


@pytest.mark.parametrize("block_tokens", [32, 48])
async def test_blocks_of_other_sizes(
    stack: AsyncExitStack, model: Model, transport: str, expected: list[int], block_tokens: int
) -> None:
    """B's are longer; then A asks B for what it has."""
    peers = await meet(stack, model, transport, expected, block_tokens=block_tokens)
    assert await peers.ask_b(peers.source()) == peers.whole_tokens > 0
    assert num_pulled(peers.b) == peers.whole_tokens // block_tokens
    await peers.a.instance._thread.call(peers.a.engine.flush_cache)
    back = Peers(peers.b, peers.a, peers.question, expected)
    assert await back.ask_b(back.source()) == peers.whole_tokens
    await peers.check_idle()


async def test_several_wait_for_one_pull(
    peers: Peers, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = stick(monkeypatch)
    specs = [peers.spec(f"b{number}") for number in range(3)]
    for spec in specs:
        peers.b.instance.prefill(spec, peers.b.address, peers.source())
    await stuck.reached.wait()
    await until(lambda: [pull.num_waiting for pull in _pulls(peers.b)] == [3])
    stuck.may_go_on.set()
    for spec in specs:
        provide(peers.b, spec, peers.question)
        assert await peers.answered(spec) == peers.whole_tokens
    assert peers.a.sender.stats.of("b", transport).committed == 1
    await peers.check_idle()


def _pulls(part: Part) -> list[object]:
    assert part.instance._prefixes is not None
    return list(part.instance._prefixes._pulls._pulls.values())


async def test_embeddings_that_come_meanwhile_are_kept(
    peers: Peers, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a picture after the prefix."""
    family = load_family(model.path)
    more = make_question(family, 9, num_text=3, pictures=[(112, 112)])
    token_ids = (*peers.question.token_ids, *more.token_ids)
    question = Question(token_ids, (*peers.question.pictures, *more.pictures))
    bench, spec = Bench(model), ask(model, "longer", question)
    answer_all(bench, [spec], [question])
    peers.expected = bench.tokens[spec.key]
    stuck = stick(monkeypatch)
    peers.b.instance.prefill(spec, peers.b.address, peers.source())
    await stuck.reached.wait()
    provide(peers.b, spec, question)
    assert peers.b.steps == []
    stuck.may_go_on.set()
    assert await peers.answered(spec) >= peers.whole_tokens
    await peers.check_idle()


async def test_a_request_that_is_cancelled_while_it_pulls(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = stick(monkeypatch)
    spec = peers.spec()
    peers.b.instance.prefill(spec, peers.b.address, peers.source())
    provide(peers.b, spec, peers.question)
    await stuck.reached.wait()
    assert [lease.is_prefix for lease in peers.b.receiver.leases] == [True]
    await peers.b.instance.cancel(spec.key)
    await peers.check_idle()
    assert peers.b.steps == []
    stuck.may_go_on.set()
    assert await peers.ask_b(peers.source(), "later") == peers.whole_tokens


async def test_what_was_evicted_is_computed(peers: Peers) -> None:
    await peers.a.instance._thread.call(peers.a.engine.flush_cache)
    assert await peers.ask_b(peers.source()) == num_pulled(peers.b) == 0
    await peers.check_idle()


async def test_a_life_that_is_over_is_not_asked(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert await peers.ask_b(peers.source(epoch=99)) == num_pulled(peers.b) == 0
    assert "holder_epoch: 99 is not this life of the instance" in caplog.text
    await peers.check_idle()


async def test_another_model_is_refused(
    stack: AsyncExitStack, model: Model, transport: str, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    peers = await meet(stack, model, transport, expected, fingerprint="another")
    assert await peers.ask_b(peers.source()) == num_pulled(peers.b) == 0
    assert "model_fingerprint" in caplog.text
    await peers.check_idle()


async def test_another_tenant_finds_nothing(peers: Peers) -> None:
    spec = replace(peers.spec(), cache=CacheUse(b"x" * 32, "theirs"))
    peers.b.instance.prefill(spec, peers.b.address, peers.source())
    provide(peers.b, spec, peers.question)
    assert await peers.answered(spec) == num_pulled(peers.b) == 0
    await peers.check_idle()


@pytest.mark.cluster
async def test_a_holder_that_is_killed_in_the_middle(
    stack: AsyncExitStack, model: Model, transport: str, expected: list[int]
) -> None:
    words = (sys.executable, "-m", "tests.stage_servers.cache.holder", str(model.path), transport, CLUSTER)
    holder = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    address = PeerAddress(**json.loads(await holder.stdout.readline()))
    b = await stack.enter_async_context(part(model, "b", transport, epoch=2))
    question = question_of(model)
    spec = ask(model, "b", question)
    b.instance.prefill(spec, b.address, PrefixSource(address, len(spec.prompt)))
    provide(b, spec, question)
    await holder.stdout.readline()
    [lease] = b.receiver.leases
    num_planes = b.kv.layout.num_planes
    await until(lambda: planes_written(b.kv, lease) == list(range(num_planes // 2)))
    holder.kill()
    await holder.wait()
    await b.has_ended(spec)
    assert b.tokens[spec.key] == list(enumerate(expected))
    assert b.num_prefilled(spec) == len(spec.prompt)
    await until(lambda: not list(b.receiver.leases) and b.is_free)
    b.assert_nothing_is_held()
    reap_segments(CLUSTER)
