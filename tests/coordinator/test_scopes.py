"""Cache scopes at the door: whose entries a request may find, and who is refused."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import stage_control_pb2
from tests.coordinator.conftest import Bench, MakeBench, ask_for

UNSPECIFIED = pb.CACHE_SCOPE_UNSPECIFIED
NONE, TENANT, CLUSTER = pb.CACHE_SCOPE_NONE, pb.CACHE_SCOPE_TENANT, pb.CACHE_SCOPE_CLUSTER
FILE = """
[tenants.a]
may_share_cache = true
cache_share = 0.5
[tenants.b]
may_share_cache = true
[tenants.quiet]
cache_scope = "none"
"""


@pytest.fixture
async def strict(make_bench: MakeBench, tmp_path: Path) -> Bench:
    (tmp_path / "tenants.toml").write_text(FILE)
    return await make_bench("epd", tenants=tmp_path / "tenants.toml")


async def cache_use(
    bench: Bench,
    tenant: str = "",
    scope: pb.CacheScope.ValueType = pb.CACHE_SCOPE_UNSPECIFIED,
    salt: str = "",
) -> stage_control_pb2.CacheUse | None:
    """What the prefill instance is told to share with whom."""
    request = ask_for(max_tokens=1)
    request.tenant, request.cache_scope, request.cache_salt = tenant, scope, salt
    await bench.ask(request)
    newest = [each for each in bench.stages[0].commands if each.WhichOneof("message") == "prefill"][-1]
    sequence = newest.prefill.sequence
    return sequence.cache if sequence.HasField("cache") else None


async def salt_of(bench: Bench, *asked: object) -> bytes:
    use = await cache_use(bench, *asked)
    assert use is not None
    assert len(use.salt) == 32
    return use.salt


async def test_tenants_share_nothing_unless_they_ask_to(strict: Bench) -> None:
    assert await salt_of(strict, "a") == await salt_of(strict, "a", TENANT)
    assert await salt_of(strict, "") == await salt_of(strict, "default")
    assert await salt_of(strict, "a", CLUSTER) == await salt_of(strict, "b", CLUSTER)
    different = [
        await salt_of(strict, "a"),
        await salt_of(strict, "b"),
        await salt_of(strict, "a", CLUSTER),
        await salt_of(strict, "a", TENANT, "s"),
        await salt_of(strict, "a", CLUSTER, "s"),
    ]
    assert len(set(different)) == len(different)


async def test_entries_count_against_the_tenants_share_in_every_scope(strict: Bench) -> None:
    use = await cache_use(strict, "a", CLUSTER)
    assert use is not None
    assert use.tenant == "a"


async def test_scope_none_shares_with_nobody(strict: Bench) -> None:
    assert await cache_use(strict, "a", NONE) is None
    assert await cache_use(strict, "quiet") is None
    assert await cache_use(strict, "quiet", TENANT) is not None


@pytest.mark.parametrize(
    ("tenant", "scope", "code"),
    [
        ("c", CLUSTER, grpc.StatusCode.PERMISSION_DENIED),
        ("", CLUSTER, grpc.StatusCode.PERMISSION_DENIED),
        ("a", 99, grpc.StatusCode.INVALID_ARGUMENT),
        ("a", -1, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_refused(strict: Bench, tenant: str, scope: int, code: grpc.StatusCode) -> None:
    failure = await strict.fail(
        pb.GenerateRequest(messages=ask_for().messages, tenant=tenant, cache_scope=scope)
    )
    assert (failure.code, failure.field) == (code, "cache_scope")
    assert not strict.stages[0].kinds().count("prefill")
    await strict.assert_idle()


async def test_instances_are_told_of_shares_as_they_come_and_as_these_change(
    strict: Bench, tmp_path: Path
) -> None:
    def told(name: str) -> list[dict[str, float]]:
        (stage,) = (each for each in strict.stages if each.name == name)
        found = (each for each in stage.commands if each.WhichOneof("message") == "set_cache_shares")
        return [dict(each.set_cache_shares.shares) for each in found]

    await strict.until(lambda: told("epd0") == [{"a": 0.5}])
    (tmp_path / "tenants.toml").write_text("tenants.b.cache_share = 0.25")
    strict.coordinator.tenancy.reload()
    await strict.until(lambda: told("epd0") == [{"a": 0.5}, {"b": 0.25}])
    await strict.add("epd", name="late")
    await strict.until(lambda: told("late") == [{"b": 0.25}])
