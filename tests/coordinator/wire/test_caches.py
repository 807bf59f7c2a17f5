"""What is said of caches: whole keys, every count, unset apart from empty."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import stage_messages as records
from coordinator.errors import InvalidFieldError
from coordinator.wire import caches as wire
from coordinator.wire.commands import from_command
from coordinator.wire.stages import to_report
from core.sampling import SamplingParams
from core.sequence import CacheUse, MediaSpan, SequenceSpec
from elasticmm.v1 import stage_control_pb2 as pb

PEER = records.Peer("h0", "h:1", "here", 2**63)
USE = CacheUse(b"s" * 32, "tenant")
SPAN = MediaSpan(1, 3, 4, (1, 4, 4), b"d" * 32, b"i" * 32)
ITEM = records.MediaItem(b"d" * 32, 5, 4, 3, "image/png", "h:2", "/dev/shm/x", "here")
KEYS = st.lists(st.binary(min_size=32, max_size=32), max_size=5).map(tuple)
COUNTS = st.integers(0, 2**64 - 1)
COUNTERS = st.builds(
    records.CacheCounters,
    pool=st.sampled_from(records.CachePool),
    evictions=st.dictionaries(st.sampled_from(["room", "age", "flush"]), COUNTS),
    saved_s=st.floats(0, 1e9),
    **{
        field.name: COUNTS
        for field in dataclasses.fields(records.CacheCounters)
        if field.name not in ("pool", "evictions", "saved_s")
    },
)


def sequence(**fields: object) -> SequenceSpec:
    return SequenceSpec("r", 3, (1, 2), SamplingParams(5), media=(SPAN,), **fields)


@given(KEYS, KEYS)
def test_reports_hold_whole_keys(stored: tuple[bytes, ...], evicted: tuple[bytes, ...]) -> None:
    message = pb.CacheReport(stored=b"".join(stored), evicted=b"".join(evicted))
    report = to_report(pb.StageMessage.FromString(pb.StageMessage(cache=message).SerializeToString()))
    assert report == records.CacheReport(stored, evicted)


@pytest.mark.parametrize("field", ["stored", "evicted"])
def test_parts_of_keys_are_refused(field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        to_report(pb.StageMessage(cache=pb.CacheReport(**{field: b"x" * 33})))
    assert caught.value.field == f"cache.{field}"


@given(COUNTERS)
def test_counters_both_ways(counters: records.CacheCounters) -> None:
    message = wire.from_counters(counters)
    assert wire.to_counters(type(message).FromString(message.SerializeToString())) == counters


def test_counters_come_with_heartbeats_those_of_unknown_pools_do_not() -> None:
    counters = records.CacheCounters(records.CachePool.EMBEDDING, entries=3, evictions={"room": 2})
    heartbeat = pb.Heartbeat(caches=[wire.from_counters(counters), pb.CacheCounters(entries=1)])
    report = to_report(pb.StageMessage(heartbeat=heartbeat))
    assert isinstance(report, records.HeartbeatReport)
    assert report.caches == (counters,)


@pytest.mark.parametrize("pool", [None, *records.CachePool])
def test_pools_both_ways(pool: records.CachePool | None) -> None:
    assert wire.to_pool(wire.from_pool(pool)) is pool


@pytest.mark.parametrize("indices", [(), (0,), (2, 0)])
def test_needs(indices: tuple[int, ...]) -> None:
    message = pb.NeedReport(request_id="r", attempt=3, item_indices=indices)
    assert to_report(pb.StageMessage(need=message)) == records.NeedReport("r", 3, indices)


def test_flushes() -> None:
    everything = from_command(records.FlushCacheCommand()).flush_cache
    assert (everything.tenant, everything.pool) == ("", pb.CACHE_POOL_UNSPECIFIED)
    some = from_command(records.FlushCacheCommand("tenant", records.CachePool.KV)).flush_cache
    assert (some.tenant, some.pool) == ("tenant", pb.CACHE_POOL_KV)


@pytest.mark.parametrize("shares", [{}, {"tenant": 0.5, "other": 0.0}])
def test_shares(shares: dict[str, float]) -> None:
    message = from_command(records.SetCacheSharesCommand(shares))
    assert message.WhichOneof("message") == "set_cache_shares"
    assert dict(message.set_cache_shares.shares) == shares


def test_the_source_of_a_prefix_is_nobody_unless_it_is_named() -> None:
    cold = from_command(records.PrefillCommand(sequence(), PEER)).prefill
    assert not cold.HasField("prefix")
    warm = from_command(records.PrefillCommand(sequence(), PEER, PEER, 48)).prefill
    assert (warm.prefix.instance_id, warm.prefix.epoch, warm.prefix_tokens) == ("h0", 2**63, 48)
    unnamed = from_command(records.PrefillCommand(sequence(), PEER, None, 48)).prefill
    assert (unnamed.HasField("prefix"), unnamed.prefix_tokens) == (False, 48)


@pytest.mark.parametrize("use", [None, USE, CacheUse(b"", "")])
def test_whether_something_is_cached_is_apart_from_empty(use: CacheUse | None) -> None:
    encode = from_command(records.EncodeCommand("r", 3, ITEM, SPAN, PEER, use)).encode
    assert encode.span.identity == SPAN.identity
    prefill = from_command(records.PrefillCommand(sequence(cache=use), PEER)).prefill
    for message in (encode, prefill.sequence):
        assert message.HasField("cache") == (use is not None)
        if use is not None:
            assert (message.cache.salt, message.cache.tenant) == (use.salt, use.tenant)
