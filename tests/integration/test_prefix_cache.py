"""What caches spare changes no token: conversations with pictures, tenants, flushes, and holders that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from elasticmm_client import GenerateResult, InvalidRequest
from elasticmm_client.admin import AdminClient
from tests.checkpoints import build_checkpoint
from tests.exactness import Oracle, Tally
from tests.integration.asking import tokenizer_of
from tests.integration.conversing import Conversation, make_conversation, num_different
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

NUM_TOKENS = 128
NUM_TURNS = 4
NUM_USERS = 3
SETUPS = [
    # family, topology, instances, transport
    ("first", "coupled", 1, "auto"),
    ("first", "coupled", 2, "shm"),
    ("first", "e1p1d1", None, "auto"),
    ("second", "e1p1d1", None, "grpc"),
    ("first", "e2p2d2", None, "auto"),
]


@dataclass
class Model:
    path: Path
    oracle: Oracle
    tokenizer: Any

    def check(self, asked: Sequence[Conversation], results: Sequence[GenerateResult]) -> None:
        """The tokens are those of `generate`."""
        tally = Tally()
        for conversation, result in zip(asked, results, strict=True):
            assert len(result.token_ids) == NUM_TOKENS
            self.oracle.compare(conversation.question(self.tokenizer), result.token_ids, tally)
        tally.check()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    paths = {name: build_checkpoint(folder / name, name) for name in ("first", "second")}
    return {name: Model(path, Oracle(path), tokenizer_of(path)) for name, path in paths.items()}


@dataclass
class Caches:
    """A cluster's caches as admins see them."""

    running: Running
    admin: AdminClient

    def holders(self) -> set[str]:
        """Instances that keep something, as they tell it themselves."""
        return {each.id for each in self.admin.cache().instances if any(p.entries for p in each.pools)}

    def num_made(self) -> int:
        """Embeddings that encoders looked for and did not find."""
        pools = [
            pool
            for instance in self.admin.cache().instances
            for pool in instance.pools
            if pool.pool == "embedding" and "e" in instance.id.partition("-")[0]
        ]
        return sum(pool.lookups - pool.hits for pool in pools)

    def flush(self, instance_id: str | None = None) -> None:
        """Returns once the instances have told that nothing is kept there."""
        flushed = set(self.admin.flush_cache(instance_id=instance_id, reason="a test"))
        self.running.wait_until(lambda _: not flushed & self.holders())

    def was_sent_to(self, request_id: str, encoder: str) -> bool:
        """Whether the request's first picture was to come from this instance."""
        try:
            media = self.admin.explain_cache(request_id).media
        except InvalidRequest:
            return False
        return media[0].encode_instance == encoder


@pytest.fixture
def caches(models: dict[str, Model], tmp_path: Path) -> Iterator[Caches]:
    """Two encoders, so that one may die."""
    with start(tmp_path, models["first"], "e2p1d1") as found:
        yield found


@contextmanager
def start(folder: Path, model: Model, topology: str, *options: str) -> Iterator[Caches]:
    settings = ["--dtype", "float32", "--chunk-tokens", "48", "--kv-blocks", "800", "--threads", "1"]
    with cluster(folder / "state", model.path, topology, *settings, *options) as running:
        token = (running.state_dir / "token").read_text().strip()
        with closing(AdminClient(running.address, token)) as admin:
            yield Caches(running, admin)


def ask(running: Running, asked: Sequence[Conversation], **options: Any) -> list[GenerateResult]:
    """All at once."""
    with ThreadPoolExecutor(len(asked)) as threads:
        streams = threads.map(
            lambda each: running.client.generate(
                each.to_send(), max_tokens=NUM_TOKENS, ignore_eos=True, **options
            ).result(),
            asked,
        )
        return list(streams)


def tokens(results: Sequence[GenerateResult]) -> list[tuple[int, ...]]:
    return [tuple(result.token_ids) for result in results]


def num_encoded(asked: Sequence[Conversation], results: Sequence[GenerateResult]) -> int:
    """Pictures that were encoded for these requests, as clients are told."""
    pairs = zip(asked, results, strict=True)
    return sum(len(each.pictures) - result.usage.cached_media for each, result in pairs)


@pytest.mark.parametrize(("family", "topology", "instances", "transport"), SETUPS)
def test_conversations(
    models: dict[str, Model],
    tmp_path: Path,
    family: str,
    topology: str,
    instances: int | None,
    transport: str,
) -> None:
    model = models[family]
    users = [make_conversation(seed, NUM_TURNS) for seed in range(NUM_USERS)]
    options = ["--transport", transport] + (["--instances", str(instances)] if instances else [])
    # Of two that prefill, one that has nothing of a prompt and nothing to do may be the quicker one.
    has_choice = instances == 2 or topology == "e2p2d2"
    with start(tmp_path, model, topology, *options) as caches:
        running = caches.running
        results: list[GenerateResult] = []
        asked: list[Conversation] = []
        for turn in range(NUM_TURNS):
            now = [turns[turn] for turns in users]
            warm = ask(running, now)
            cold = ask(running, now, cache_scope="none")
            assert tokens(warm) == tokens(cold)
            assert not any(each.usage.cached_tokens or each.usage.cached_media for each in cold)
            if turn and not has_choice:
                assert all(each.usage.cached_tokens > 0 for each in warm)
            results += warm
            asked += now
        model.check(asked, results)
        assert any(each.usage.cached_tokens > 0 for each in results)
        assert num_encoded(asked, results) == num_different(asked)
        num_cold = sum(len(each.pictures) for each in asked)
        running.wait_until(lambda _: caches.num_made() == num_different(asked))
        assert num_cold > num_different(asked)
        running.assert_idle()


def test_tenants_find_nothing_of_each_other(models: dict[str, Model], caches: Caches) -> None:
    running = caches.running
    asked = make_conversation(7, 2)
    mine = [ask(running, [each], tenant="mine")[0] for each in (*asked, asked[-1])]
    other = ask(running, [asked[-1]], tenant="other")[0]
    assert mine[-1].usage.cached_tokens > mine[0].usage.cached_tokens == 0
    assert mine[-1].usage.cached_media == len(asked[-1].pictures)
    assert (other.usage.cached_tokens, other.usage.cached_media) == (0, 0)
    models["first"].check([asked[-1]] * 2, [mine[-1], other])
    running.assert_idle()


def test_a_flush_empties_all_caches(models: dict[str, Model], caches: Caches) -> None:
    running = caches.running
    (asked,) = make_conversation(8, 1)
    first = ask(running, [asked])
    running.wait_until(lambda _: caches.holders() and caches.admin.cache().index_keys > 0)
    caches.flush()
    running.wait_until(lambda _: caches.admin.cache().index_keys == 0)
    again, third = ask(running, [asked]), ask(running, [asked])
    assert (again[0].usage.cached_tokens, again[0].usage.cached_media) == (0, 0)
    assert third[0].usage.cached_tokens > 0
    models["first"].check([asked] * 3, [*first, *again, *third])
    running.assert_idle()


def test_a_holder_that_dies_before_it_delivers(models: dict[str, Model], caches: Caches) -> None:
    running = caches.running
    (asked,) = make_conversation(9, 1)
    first = ask(running, [asked])
    (holder,) = {span.instance for span in first[0].stages if span.stage == "encode"}
    for name in ("p-0", "d-0"):  # so that nobody else has it, nor the prefix that holds it
        caches.flush(name)
    running.wait_until(lambda _: caches.holders() == {holder})
    pid = running.pids[holder]
    os.kill(pid, signal.SIGSTOP)
    try:
        stream = running.client.generate(
            asked.to_send(), max_tokens=NUM_TOKENS, ignore_eos=True, request_id="held"
        )
        running.wait_until(lambda _: caches.was_sent_to("held", holder))
    finally:
        os.kill(pid, signal.SIGKILL)
    again = stream.result()
    assert again.usage.cached_media == 0
    assert any("dispatched 2 times" in each for each in caches.admin.explain_cache("held").reasons)
    models["first"].check([asked] * 2, [*first, again])
    running.assert_idle()
