import pytest

from elasticmm.v1 import admin_pb2, inference_pb2, stage_control_pb2
from elasticmm_client import AccessDenied, AdminClient, InvalidRequest, MediaExplanation
from elasticmm_client.caches import cache_from_proto, explanation_from_proto
from tests.clients.fake_cluster import TOKEN, FakeCluster


def test_what_caches_hold_and_did(cluster: FakeCluster) -> None:
    with AdminClient(cluster.address, TOKEN) as admin:
        cache = admin.cache()
    assert [(each.id, len(each.pools)) for each in cache.instances] == [("e-0", 0), ("pd-0", 1)]
    (pool,) = cache.instances[1].pools
    assert (pool.pool, pool.entries, pool.device_bytes, pool.host_capacity_bytes) == (
        "kv",
        40,
        3 << 20,
        8 << 20,
    )
    assert (pool.hits, pool.evictions, pool.saved_s) == (75, {"room": 45, "flush": 5}, 12.5)
    assert (cache.index_keys, cache.index_bytes) == (1000, 3 << 20)


def test_flush(cluster: FakeCluster) -> None:
    with AdminClient(cluster.address, TOKEN) as admin:
        assert admin.flush_cache() == ("pd-0", "e-0")
        admin.flush_cache(tenant="t", pool="embedding", instance_id="p-1", reason="why")
        with pytest.raises(ValueError, match="'all' is neither of kv, embedding"):
            admin.flush_cache(pool="all")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest) as caught:
            admin.flush_cache(instance_id="no")
    assert caught.value.field == "instance_id"
    everything, one = (request for _, request in cluster.orders)
    assert everything == admin_pb2.FlushCacheRequest()
    assert (one.tenant, one.instance_id, one.reason) == ("t", "p-1", "why")
    assert one.pool == stage_control_pb2.CACHE_POOL_EMBEDDING


def test_explain(cluster: FakeCluster) -> None:
    with AdminClient(cluster.address, TOKEN) as admin:
        found = admin.explain_cache("r")
        with pytest.raises(InvalidRequest) as caught:
            admin.explain_cache("another")
    assert caught.value.code == "NOT_FOUND"
    assert (found.tenant, found.scope, found.prompt_tokens, found.cached_tokens) == ("t", "tenant", 100, 16)
    assert (found.known_instance, found.known_tokens, found.prefill_instance) == ("p-0", 96, "p-1")
    assert found.media[0] == MediaExplanation("messages[0].parts[0].image", True, ("e-0", "e-1"), "e-0")
    assert found.reasons == ("the 96 tokens on p-0 were not used",)


def test_what_a_newer_server_says_is_left_out() -> None:
    pools = [stage_control_pb2.CacheCounters(pool=9), stage_control_pb2.CacheCounters(pool=1)]  # type: ignore[arg-type]
    caches = admin_pb2.InstanceCaches(instance_id="i", caches=pools)
    (instance,) = cache_from_proto(admin_pb2.GetCacheResponse(instances=[caches])).instances
    assert [each.pool for each in instance.pools] == ["kv"]
    unknown = admin_pb2.ExplainCacheResponse(scope=9)  # type: ignore[arg-type]
    assert explanation_from_proto(unknown).scope == ""
    known = admin_pb2.ExplainCacheResponse(scope=inference_pb2.CACHE_SCOPE_CLUSTER)
    assert explanation_from_proto(known).scope == "cluster"


def test_they_need_the_token(cluster: FakeCluster) -> None:
    with AdminClient(cluster.address, None) as admin, pytest.raises(AccessDenied):
        admin.cache()
