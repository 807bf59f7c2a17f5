"""Runs questions through engines, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.clock import ManualClock
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.settings import CacheSettings
from stage_servers.engine.engine import Engine
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig, EngineListener, Key, StepOutput
from tests.exactness import Question


def make_pool(model: Model, num_blocks: int, block_tokens: int) -> torch.Tensor:
    """A pool full of garbage, so that reading what was never written shows."""
    shape = (model.kv_planes, num_blocks, block_tokens, model.kv_token_elements)
    return torch.full(shape, 1e3, dtype=model.dtype, device=model.device)


class Bench:
    """An engine with its pool, and what came out of it."""

    def __init__(
        self,
        model: Model,
        *,
        num_blocks: int = 256,
        block_tokens: int = 16,
        max_batch_tokens: int = 512,
        max_sequences: int = 64,
        listener: EngineListener | None = None,
        cache: CacheSettings | None = None,
    ) -> None:
        self.model = model
        self.pool = make_pool(model, num_blocks, block_tokens)
        self.blocks = BlockAllocator(num_blocks)
        config = EngineConfig(max_batch_tokens, max_sequences, block_tokens)
        self.clock = ManualClock()
        self.kept: set[bytes] = set()  # keys, as the cache told of them
        self.cache: KvCache | None = None
        if cache is not None:
            self.cache = KvCache(
                self.pool, self.blocks, model.fingerprint, cache, on_change=self._kept, clock=self.clock
            )
        self.needed: list[tuple[Key, tuple[int, ...]]] = []
        self.engine = Engine(
            model,
            self.pool,
            self.blocks,
            config,
            listener,
            cache=self.cache,
            on_needed=lambda key, items: self.needed.append((key, items)),
        )
        self.steps: list[StepOutput] = []
        self.tokens: dict[Key, list[int]] = {}

    def start(self, spec: SequenceSpec, question: Question, *, hand_over: bool = False) -> None:
        self.engine.add_prefill(spec, hand_over=hand_over)
        self.provide(spec, question)

    def provide(self, spec: SequenceSpec, question: Question, items: Sequence[int] | None = None) -> None:
        """These items' embeddings, None: all."""
        for span, embedding in zip(spec.media, self.embed(spec, question), strict=True):
            if items is None or span.item_index in items:
                assert self.engine.provide_embedding(spec.key, span.item_index, embedding)

    def embed(self, spec: SequenceSpec, question: Question) -> list[torch.Tensor]:
        if not spec.media:
            return []
        pairs = zip(question.pictures, spec.media, strict=True)
        return self.model.encode([self.model.preprocess(data, span) for data, span in pairs])

    def _kept(self, stored: Sequence[bytes], dropped: Sequence[bytes]) -> None:
        self.kept = (self.kept | {*stored}) - {*dropped}

    @property
    def num_held(self) -> int:
        """Blocks that are neither free nor kept for whoever comes."""
        return self.blocks.num_blocks - self.blocks.num_free - (self.cache.num_blocks if self.cache else 0)

    def num_computed(self, spec: SequenceSpec) -> int:
        """Tokens that prefill steps computed for it."""
        return sum(p.num_tokens for step in self.steps for p in step.prefilled if p.key == spec.key)

    def step(self) -> StepOutput:
        out = self.engine.step()
        self.engine.check_integrity()
        self.steps.append(out)
        for token in out.tokens:
            outputs = self.tokens.setdefault(token.key, [])
            outputs.append(token.token_id)
        return out

    def run(self) -> None:
        """Steps until nothing more can run; every block must be free again unless kept for a hand-over."""
        while self.engine.has_work:
            self.step()

    @property
    def preempted(self) -> list[Key]:
        return [key for step in self.steps for key in step.preempted]


def answer_all(bench: Bench, specs: Sequence[SequenceSpec], questions: Sequence[Question]) -> None:
    for spec, question in zip(specs, questions, strict=True):
        bench.start(spec, question)
    bench.run()
    assert bench.num_held == 0
