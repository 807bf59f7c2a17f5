"""Prefixes that go from one engine's cache to another's answer as if computed there."""

from __future__ import annotations

import pytest
import torch

from core.sequence import SequenceSpec
from stage_servers.cache.exchange import PrefixExchange
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.prefix import Prefix
from stage_servers.cache.settings import CacheSettings
from tests.stage_servers.engine.cached import answered, ask, longer
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench


class End:
    """One engine, its cache, and its part in exchanges."""

    def __init__(self, pair: Pair, **settings: object) -> None:
        self.bench = Bench(pair.model, cache=CacheSettings(), **settings)  # type: ignore[arg-type]
        assert self.bench.cache is not None
        self.cache: KvCache = self.bench.cache
        self.exchange = PrefixExchange(self.cache)

    def begin(self, spec: SequenceSpec) -> Prefix:
        prefix = self.cache.begin(spec)
        assert prefix is not None
        return prefix


@pytest.fixture
def ends(first: Pair) -> tuple[End, End]:
    return End(first), End(first)


def pull(asker: End, holder: End, spec: SequenceSpec, num_tokens: int, prefix: Prefix) -> int:
    """As over the wire, in one go; returns how many tokens the asker has then."""
    first_token, keys = asker.exchange.missing(prefix, spec.prompt, num_tokens, 16)
    pinned = holder.exchange.pinned(keys)
    assert pinned is not None
    theirs = pinned.blocks[first_token // 16 :]
    mine = asker.bench.blocks.allocate(len(theirs))
    asker.bench.pool[:, mine] = holder.bench.pool[:, theirs]
    holder.exchange.unpin(pinned)
    return asker.exchange.adopt(prefix, spec.prompt, mine, first_token)


def test_a_pulled_prefix_is_a_hit(first: Pair, ends: tuple[End, End]) -> None:
    asker, holder = ends
    question = first.question(3, num_text=40, pictures=[(112, 112)])
    spec = ask(first, question, "a")
    answered(holder.bench, first, spec, question)
    again = ask(first, question, "b")
    prefix = asker.begin(again)
    assert pull(asker, holder, again, 48, prefix) == 48
    asker.bench.engine.check_integrity()
    asker.bench.engine.add_prefill(again, hand_over=False, prefix=prefix)
    asker.bench.provide(again, question)
    asker.bench.run()
    assert asker.bench.num_computed(again) == len(again.prompt) - 48
    assert asker.bench.tokens[again.key] == holder.bench.tokens[spec.key]
    assert asker.cache.num_pulled == 3
    assert len(asker.bench.kept & holder.bench.kept) >= 3


def test_only_what_is_missing_is_asked_for(first: Pair, ends: tuple[End, End]) -> None:
    asker, holder = ends
    question = first.question(3, num_text=40)
    further = longer(question, range(60))
    answered(asker.bench, first, ask(first, question, "a", max_tokens=1), question)
    answered(holder.bench, first, ask(first, further, "a"), further)
    spec = ask(first, further, "b")
    prefix = asker.begin(spec)
    first_token, keys = asker.exchange.missing(prefix, spec.prompt, 96, 32)
    assert (first_token, len(keys)) == (32, 2)
    assert pull(asker, holder, spec, 96, prefix) == 96
    assert asker.cache.num_pulled == 4


def test_pinned_blocks_stay_until_they_are_unpinned(first: Pair, ends: tuple[End, End]) -> None:
    _, holder = ends
    question = first.question(3, num_text=70)
    answered(holder.bench, first, ask(first, question, "a"), question)
    keys = holder.begin(ask(first, question, "b")).keys.of(question.token_ids, 64)
    pinned = holder.exchange.pinned(keys[1:])
    assert pinned is not None
    assert pinned.num_tokens == 64
    content = holder.bench.pool[:, pinned.blocks].clone()
    holder.bench.engine.flush_cache()
    assert not holder.cache.make_room(holder.bench.blocks.num_blocks)
    assert holder.bench.blocks.num_free == holder.bench.blocks.num_blocks - 4
    assert torch.equal(holder.bench.pool[:, pinned.blocks], content)
    holder.exchange.unpin(pinned)
    assert holder.bench.blocks.num_free == holder.bench.blocks.num_blocks


def test_what_is_gone_is_not_pinned(first: Pair, ends: tuple[End, End]) -> None:
    keys = ends[0].begin(ask(first, first.question(3, num_text=70), "b")).keys
    assert ends[0].exchange.pinned(keys.of(first.question(3, num_text=70).token_ids, 64)) is None


def test_blocks_whose_beginning_is_gone_are_freed(first: Pair, ends: tuple[End, End]) -> None:
    asker, _ = ends
    spec = ask(first, first.question(3, num_text=70), "b")
    blocks = asker.bench.blocks.allocate(2)
    assert asker.exchange.adopt(asker.begin(spec), spec.prompt, blocks, 32) == 0
    assert asker.bench.blocks.num_free == asker.bench.blocks.num_blocks
    assert asker.cache.num_pulled == 0


def test_what_does_not_begin_with_a_block_is_refused(first: Pair, ends: tuple[End, End]) -> None:
    spec = ask(first, first.question(3, num_text=70), "b")
    prefix = ends[0].begin(spec)
    with pytest.raises(ValueError, match="first_token"):
        ends[0].exchange.adopt(prefix, spec.prompt, [], 8)
    with pytest.raises(ValueError, match="key_tokens"):
        ends[0].exchange.missing(prefix, spec.prompt, 64, 24)
