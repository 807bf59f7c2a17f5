"""Two instances with caches, the first of which has answered; and who asks them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pytest

from core.families import load_family
from core.sequence import CacheUse, SequenceSpec
from kv_transfer.outgoing import Outgoing
from kv_transfer.sender import PeerAddress
from stage_servers.cache.settings import CacheSettings
from stage_servers.engine.model import Model
from tests.exactness import Question, make_question, make_spec
from tests.stage_servers.part import Part, running, until

CLUSTER = f"prefix-tests-{os.getpid()}"
MAX_TOKENS = 40
NUM_TEXT = 150


def question_of(model: Model) -> Question:
    """A picture, then text: the picture is within the prefix."""
    family = load_family(model.path)
    pictured = make_question(family, 6, num_text=0, pictures=[(112, 112)])
    text = make_question(family, 7, num_text=NUM_TEXT)
    return replace(pictured, token_ids=(*pictured.token_ids, *text.token_ids))


def ask(model: Model, name: str, question: Question) -> SequenceSpec:
    spec = make_spec(load_family(model.path), question, name, max_tokens=MAX_TOKENS)
    media = tuple(replace(span, identity=sha256(span.digest).digest()) for span in spec.media)
    return replace(spec, media=media, cache=CacheUse(bytes(32), "ours"))


@asynccontextmanager
async def part(model: Model, name: str, transport: str, **options: Any) -> AsyncIterator[Part]:
    cluster = CLUSTER if transport == "shm" else ""
    options = {"kv_blocks": 64, "epoch": 1, "cache": CacheSettings()} | options
    async with running(model, name, transport=transport, cluster=cluster, **options) as made:
        assert made.cache is not None
        made.cache.seconds.of = lambda *_: 30.0  # as of a model that computes slowly: a pull pays
        yield made


def provide(part: Part, spec: SequenceSpec, question: Question) -> None:
    """As its encoder would."""
    model = part.instance._model
    pixels = [model.preprocess(data, span) for data, span in zip(question.pictures, spec.media, strict=True)]
    for span, embedding in zip(spec.media, model.encode(pixels), strict=True):
        part.instance._supply.provide(spec.key, span.item_index, embedding)


@dataclass
class Peers:
    """A has answered `question`; B is asked the same."""

    a: Part
    b: Part
    question: Question
    expected: list[int]  # without caches

    def spec(self, name: str = "b") -> SequenceSpec:
        return ask(self.b.instance._model, name, self.question)

    def holder(self, **changes: object) -> PeerAddress:
        return replace(self.a.address, **changes)  # type: ignore[arg-type]

    async def answered(self, spec: SequenceSpec) -> int:
        """Waits for B's answer, compares it and returns how many of the prompt's tokens B did not compute."""
        await self.b.has_ended(spec)
        assert self.b.tokens[spec.key] == list(enumerate(self.expected))
        return len(spec.prompt) - self.b.num_prefilled(spec)

    def start_b(self, spec: SequenceSpec, holder: PeerAddress | None) -> None:
        """Who holds a prefix has all of it."""
        self.b.instance.prefill(spec, self.b.address, len(self.spec().prompt) if holder else 0, holder)

    async def ask_b(self, holder: PeerAddress | None, name: str = "b") -> int:
        """See `answered`. Embeddings come, whether they are needed or not."""
        spec = self.spec(name)
        self.start_b(spec, holder)
        provide(self.b, spec, self.question)
        return await self.answered(spec)

    @property
    def whole_tokens(self) -> int:
        """Of the prompt, in whole blocks of B, all of them before its last token."""
        size = self.b.kv.layout.block_tokens
        return (len(self.spec().prompt) - 1) // size * size

    async def check_idle(self) -> None:
        """Soon, at the end that hears of the other's leaving."""
        pushes = self.a.instance._prefixes._pushes  # type: ignore[union-attr]
        await until(lambda: not pushes._pushing and not pushes._pinned)
        await until(lambda: not list(self.b.receiver.leases) and self.b.is_free)
        for each in (self.a, self.b):
            prefixes = each.instance._prefixes
            assert prefixes is not None
            prefixes.check_idle()
            await each.instance._thread.call(each.engine.check_integrity)
            each.sender.check_idle()
            each.assert_nothing_is_held()
            assert each.is_free
            assert not list(each.instance._held)


@dataclass
class Stuck:
    """Commits of pushes that get so far and no further until they may."""

    reached: asyncio.Event
    may_go_on: asyncio.Event


def stick(monkeypatch: pytest.MonkeyPatch) -> Stuck:
    stuck, commit = Stuck(asyncio.Event(), asyncio.Event()), Outgoing.commit

    async def held(outgoing: Outgoing, *what: Any) -> None:
        stuck.reached.set()
        await stuck.may_go_on.wait()
        await commit(outgoing, *what)

    monkeypatch.setattr(Outgoing, "commit", held)
    return stuck
