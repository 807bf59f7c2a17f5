"""Requests that find something in caches, through fake stages: what is sent, and what clients are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import stage_control_pb2
from tests.coordinator.conftest import Bench, MakeBench, picture
from tests.coordinator.fake_stage import fake_token

LONG = "a question that is longer than a block or two of tokens, so that something of it can be kept; "
TOPOLOGIES = [("epd",), ("e", "p", "d"), ("ep", "d"), ("e", "p", "d") * 2]


async def ask(bench: Bench, text: str = LONG, *, pictures: int = 1, **fields: object) -> pb.Usage:
    """What the answer cost; its tokens are as they should be."""
    images = tuple(pb.ImagePart(data=picture(size=(112 + 28 * n, 84))) for n in range(pictures))
    answer = await bench.ask(text=text, images=images, max_tokens=6, seed=3, **fields)
    assert answer.token_ids == [fake_token(3, index) for index in range(6)]
    await settle(bench)
    return answer.finished.usage


async def settle(bench: Bench) -> None:
    """Returns once the coordinator knows all that the stages keep, and counts on nothing else."""
    for stage in bench.stages:
        stage.report(stage_control_pb2.StageMessage(heartbeat=stage_control_pb2.Heartbeat()))
    kept = set().union(*(stage.cache.keys for stage in bench.stages))
    cache, under_way = bench.coordinator.cache, bench.coordinator.warmth.under_way
    await bench.until(lambda: cache.num_keys == len(kept) and not any(map(under_way.holders, kept)))


@pytest.fixture
def sharing(tmp_path: Path) -> Path:
    """Settings of two tenants that may share."""
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.mine]\nmay_share_cache = true\n[tenants.other]\nmay_share_cache = true\n")
    return path


def encodes(bench: Bench) -> int:
    """How many pictures instances were told to encode so far."""
    return sum(stage.kinds().count("encode") for stage in bench.stages)


def prefills(bench: Bench) -> list[tuple[str, int]]:
    """Whom each prefill was told to ask, and for how many tokens."""
    commands = [c.prefill for stage in bench.stages for c in stage.commands if c.HasField("prefill")]
    return [(command.prefix.instance_id, command.prefix_tokens) for command in commands]


@pytest.mark.parametrize("roles", TOPOLOGIES, ids="+".join)
async def test_the_same_request_again(make_bench: MakeBench, roles: tuple[str, ...]) -> None:
    bench = await make_bench(*roles, gateway=True)
    first = await ask(bench, pictures=2)
    assert (first.cached_tokens, first.cached_media, encodes(bench)) == (0, 0, 2)
    again = await ask(bench, pictures=2)
    assert again.cached_tokens == (again.prompt_tokens - 1) // 16 * 16
    assert (again.cached_media, encodes(bench)) == (2, 2)
    await bench.assert_idle()


@pytest.mark.parametrize("roles", TOPOLOGIES, ids="+".join)
async def test_the_same_picture_after_another_text(make_bench: MakeBench, roles: tuple[str, ...]) -> None:
    bench = await make_bench(*roles, gateway=True)
    await ask(bench)
    (holder,) = (stage for stage in bench.stages if "encode" in stage.kinds())
    parts = [pb.Part(text="other"), pb.Part(image=pb.ImagePart(data=picture()))]
    request = pb.GenerateRequest(messages=[pb.Message(role="user", parts=parts)])
    request.sampling.max_tokens = 3
    usage = (await bench.ask(request)).finished.usage
    assert usage.cached_media == 1
    assert usage.cached_tokens < usage.prompt_tokens - usage.media_tokens
    assert holder.kinds().count("encode") == encodes(bench) == 2  # it sends what it has
    await bench.assert_idle()


async def test_twenty_at_once_are_encoded_on_one_of_several_encoders(make_bench: MakeBench) -> None:
    """Who is about to have it is asked again, and makes it once."""
    bench = await make_bench("e", "e", "e", "p", "p", "d", gateway=True)
    encoders = bench.stages[:3]
    for stage in encoders:
        stage.hold_encode.clear()
    asks = [asyncio.create_task(ask(bench)) for _ in range(20)]
    await bench.until(lambda: encodes(bench) > 1)
    for stage in encoders:
        stage.hold_encode.set()
    await asyncio.gather(*asks)
    assert sum("encode" in stage.kinds() for stage in encoders) == 1
    await bench.assert_idle()


async def test_blocks_of_another_size(make_bench: MakeBench) -> None:
    bench = await make_bench(gateway=True)
    await bench.add("epd", block_tokens=32)
    await ask(bench)
    again = await ask(bench)
    assert again.cached_tokens == (again.prompt_tokens - 1) // 32 * 32 > 0
    assert (again.cached_media, encodes(bench)) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "other"},
        {"cache_salt": "salt"},
        {"cache_scope": pb.CACHE_SCOPE_NONE},
        {"cache_scope": pb.CACHE_SCOPE_CLUSTER},
    ],
)
async def test_who_may_not_share_finds_nothing(
    make_bench: MakeBench, sharing: Path, other: dict[str, object]
) -> None:
    bench = await make_bench("e", "p", "d", gateway=True, tenants=sharing)
    await ask(bench, tenant="mine")
    usage = await ask(bench, **{"tenant": "mine", **other})
    assert (usage.cached_tokens, usage.cached_media, encodes(bench)) == (0, 0, 2)
    assert prefills(bench) == [("", 0)] * 2
    mine = await ask(bench, tenant="mine")
    assert mine.cached_tokens > 0
    assert (mine.cached_media, encodes(bench)) == (1, 2)


async def test_tenants_that_both_ask_to_share(make_bench: MakeBench, sharing: Path) -> None:
    bench = await make_bench("e", "p", "d", gateway=True, tenants=sharing)
    for tenant in ("mine", "other"):
        usage = await ask(bench, tenant=tenant, cache_scope=pb.CACHE_SCOPE_CLUSTER)
    assert usage.cached_tokens > 0
    assert (usage.cached_media, encodes(bench)) == (1, 1)


async def test_nothing_is_kept_of_what_may_not_be(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    for _ in range(2):
        usage = await ask(bench, cache_scope=pb.CACHE_SCOPE_NONE)
        assert (usage.cached_tokens, usage.cached_media) == (0, 0)
    assert bench.coordinator.cache.num_keys == 0


async def test_what_was_evicted_is_done_again(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    await ask(bench)
    for stage in bench.stages:
        stage.report(stage.cache.forget())
    await bench.until(lambda: bench.coordinator.cache.num_keys == 0)
    usage = await ask(bench)
    assert (usage.cached_tokens, usage.cached_media, encodes(bench)) == (0, 0, 2)
    assert prefills(bench)[1] == ("", 0)


async def test_a_stale_index_costs_an_encode_and_no_more(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    await ask(bench)
    for stage in bench.stages:
        stage.cache.lose()
    usage = await ask(bench)
    assert prefills(bench)[1][1] > 0  # it was told of a prefix
    assert (usage.cached_tokens, usage.cached_media, encodes(bench)) == (0, 0, 2)
    again = await ask(bench)
    assert (again.cached_media, encodes(bench)) == (1, 2)
    await bench.assert_idle()


async def test_an_instance_that_comes_again_has_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", gateway=True)
    await ask(bench)
    await bench.stages.pop().crash()
    await bench.until(lambda: not bench.coordinator.cluster.num_instances)
    await bench.add("epd")
    usage = await ask(bench)
    assert (usage.cached_tokens, usage.cached_media) == (0, 0)


async def test_dispatch_that_knows_of_no_caches(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True, cache_aware=False)
    await ask(bench)
    usage = await ask(bench)
    assert prefills(bench) == [("", 0)] * 2
    assert encodes(bench) == 2
    assert usage.cached_tokens > 0  # it has it nevertheless


async def test_what_was_found_is_explained(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", gateway=True)
    for name in ("first", "second"):
        await ask(bench, request_id=name)
    first, second = (bench.coordinator.explanations.get(name) for name in ("first", "second"))
    assert first is not None
    assert second is not None
    assert (first.known_tokens, first.cached_tokens, first.has_ended) == (0, 0, True)
    assert second.known_tokens == second.cached_tokens == second.prefix_tokens > 0
    assert [item.was_cached for item in second.items] == [True]
