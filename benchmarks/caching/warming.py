"""What a request costs the coordinator before dispatch: its keys, and what caches hold of it."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.request_keys import TOKENS_AT_ONCE, RequestKeys, begin_keys
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.policy.books import Books, InstanceBook
from coordinator.stage_messages import CacheReport, InstanceInfo
from core.clock import ManualClock
from core.sequence import CacheUse, MediaSpan
from core.stages import COUPLED, ModalityGroup

_ROUNDS = 30
_BLOCK_TOKENS, _KV_BLOCKS, _EMBEDDING_BLOCKS = 16, 4000, 1000
_SYSTEM_GRANULES = 6  # what all prompts begin with: every instance has it
_WARM = 3  # instances that have a part of the rest, and the picture
_SPAN = MediaSpan(0, 100, 32, (1, 2, 2), b"d" * 32, b"i" * 32)


@dataclass(frozen=True, slots=True)
class WarmthFigures:
    """Medians of some rounds."""

    instances: int
    prompt_tokens: int
    keys_ms: float  # to make them all
    turn_ms: float  # of that, the longest that others on the loop wait
    look_us: float  # who has what of it, when something has changed


def measure_warmth(instances: int, prompt_tokens: int) -> WarmthFigures:
    rng = random.Random(0)
    prompt = tuple(rng.randrange(150_000) for _ in range(prompt_tokens))
    rounds = [_make_keys(prompt) for _ in range(_ROUNDS)]
    keys = rounds[0][0]
    warmth = _warmth(instances, keys)
    return WarmthFigures(
        instances,
        prompt_tokens,
        statistics.median(sum(turns) for _, turns in rounds) * 1e3,
        statistics.median(max(turns) for _, turns in rounds) * 1e3,
        statistics.median(_look_s(warmth, keys) for _ in range(_ROUNDS)) * 1e6,
    )


def _make_keys(prompt: tuple[int, ...]) -> tuple[RequestKeys, list[float]]:
    """With the seconds of each turn on the loop."""
    keys, turns = begin_keys("model", CacheUse(b"s" * 32, "tenant"), [_SPAN]), []
    while True:
        start_s = time.perf_counter()
        longer = keys.extended(prompt, [_SPAN], TOKENS_AT_ONCE)
        turns.append(time.perf_counter() - start_s)
        if longer is keys:
            return keys, turns
        keys = longer


def _warmth(instances: int, keys: RequestKeys) -> RequestWarmth:
    cache, books, clock = ClusterCache(), Books(), ManualClock()
    warmth = RequestWarmth(cache, EmbeddingsUnderWay(), books, clock)
    for number in range(instances):
        info = _info(f"i{number}")
        cache.attach(info)
        books.add_instance(InstanceBook(info.instance_id, COUPLED, info.group, _BLOCK_TOKENS, _KV_BLOCKS))
        has = keys.chain[:_SYSTEM_GRANULES]
        if number < _WARM:
            has = keys.chain[: len(keys.chain) * (number + 1) // _WARM]
            has += tuple(key for key in keys.embeddings if key is not None)
        cache.update(info.instance_id, info.epoch, CacheReport(has))
    return warmth


def _look_s(warmth: RequestWarmth, keys: RequestKeys) -> float:
    warmth.enter("request", keys)  # so that no answer is known
    start_s = time.perf_counter()
    warmth.of_request("request")
    return time.perf_counter() - start_s


def _info(name: str) -> InstanceInfo:
    return InstanceInfo(
        instance_id=name,
        epoch=1,
        roles=COUPLED,
        group=ModalityGroup.SHARED,
        endpoint="",
        host_id="",
        pid=0,
        model_fingerprint="model",
        dtype="float32",
        device="cpu",
        attention_backend="sdpa",
        block_tokens=_BLOCK_TOKENS,
        total_kv_blocks=_KV_BLOCKS,
        total_embedding_blocks=_EMBEDDING_BLOCKS,
    )
