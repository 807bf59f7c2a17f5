"""Prompts that begin alike, of two instances that pull from each other; some are given up, caches flushed."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from core.sequence import SequenceSpec
from stage_servers.engine.model import Model
from tests.stage_servers.cache.peers import Peers, ask, part, provide, question_of
from tests.stage_servers.engine.harness import Bench, answer_all
from tests.stage_servers.part import Part, until

NUM_REQUESTS = 40
ENDINGS = [60, 90, 91, 128, 150]  # tokens that a prompt shares with the others before it goes its own way


class Crowd:
    """Requests to both, each named the other as the holder of all of its prompt."""

    def __init__(self, peers: Peers, model: Model, seed: int) -> None:
        self.peers = peers
        self.model = model
        self.random = random.Random(seed)
        self.asked: list[tuple[Part, SequenceSpec]] = []

    def ask(self, number: int) -> None:
        a, b = self.peers.a, self.peers.b
        where, holder = (a, b) if self.random.random() < 0.5 else (b, a)
        whole = ask(self.model, f"r{number}", self.peers.question)
        end = self.random.choice(ENDINGS)
        spec = replace(whole, prompt=(*whole.prompt[:end], *range(number, number + 20)))
        where.instance.prefill(spec, where.address, len(spec.prompt), holder.address)
        provide(where, spec, self.peers.question)
        self.asked.append((where, spec))

    async def disturb(self) -> None:
        chance = self.random.random()
        if chance < 0.3:
            where, spec = self.asked.pop(self.random.randrange(len(self.asked)))
            await where.instance.cancel(spec.key)
        elif chance < 0.4:
            where, _ = self.random.choice(self.asked)
            where.instance.flush_cache(None, None)
        else:
            await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.02]))

    async def assert_exact(self) -> None:
        bench = Bench(self.model)
        for where, spec in self.asked:
            await where.has_ended(spec)
        specs = [replace(spec, cache=None) for _, spec in self.asked]
        answer_all(bench, specs, [self.peers.question] * len(specs))
        for where, spec in self.asked:
            assert [token for _, token in where.tokens[spec.key]] == bench.tokens[spec.key], spec.request_id


@pytest.mark.parametrize("transport", ["grpc", "shm"])
async def test_whatever_happens_meanwhile(model: Model, transport: str) -> None:
    async with AsyncExitStack() as stack:
        a, b = [
            await stack.enter_async_context(part(model, name, transport, epoch=epoch, kv_blocks=num_blocks))
            for name, epoch, num_blocks in (("a", 1, 200), ("b", 2, 40))
        ]
        crowd = Crowd(Peers(a, b, question_of(model), []), model, seed=3)
        for number in range(NUM_REQUESTS):
            crowd.ask(number)
            await crowd.disturb()
        await crowd.assert_exact()
        assert a.cache is not None
        assert b.cache is not None
        assert a.cache.num_pulled > 0
        assert b.cache.num_pulled > 0
        for each in (a, b):
            pushes = each.instance._prefixes._pushes  # type: ignore[union-attr]
            await until(lambda pushes=pushes: not pushes._pushing and not pushes._pinned)  # type: ignore[misc]
            await until(lambda each=each: not list(each.receiver.leases))  # type: ignore[misc]
            each.instance.flush_cache(None, None)
            await each.instance._thread.call(lambda: None)
            assert each.kv.blocks.num_free == each.kv.num_blocks
        await crowd.peers.check_idle()
