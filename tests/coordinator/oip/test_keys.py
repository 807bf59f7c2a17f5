"""Keys at this door: whose they are decides the tenant, and probes need none."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from coordinator.access.keys import digest_of
from core.access import token_metadata
from elasticmm.oip import open_inference_pb2 as pb
from elasticmm.v1 import admin_pb2, admin_pb2_grpc
from tests.coordinator.conftest import Bench, MakeBench, failure_of
from tests.coordinator.oip.conftest import infer_request, stub_of

FILE = f"""
[[tenants.acme.keys]]
sha256 = "{digest_of("acme's")}"
rights = ["infer", "admin"]
"""
CODES = grpc.StatusCode


@pytest.fixture
async def guarded(make_bench: MakeBench, tmp_path: Path) -> Bench:
    (tmp_path / "tenants.toml").write_text(FILE)
    return await make_bench("epd", tenants=tmp_path / "tenants.toml")


async def test_the_keys_tenant(guarded: Bench) -> None:
    metadata, admin = token_metadata("acme's"), admin_pb2_grpc.AdminStub(guarded.channel)
    await stub_of(guarded).ModelInfer(infer_request(max_tokens=2, request_id="r"), metadata=metadata)
    why = await admin.ExplainCache(admin_pb2.ExplainCacheRequest(request_id="r"), metadata=metadata)
    assert why.tenant == "acme"


async def test_another_tenant(guarded: Bench) -> None:
    metadata = token_metadata("acme's")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub_of(guarded).ModelInfer(infer_request(tenant="zoo"), metadata=metadata)
    failure = failure_of(caught.value)
    assert (failure.code, failure.field) == (CODES.PERMISSION_DENIED, "tenant")
    responses = stub_of(guarded).ModelStreamInfer(iter([infer_request(tenant="zoo")]), metadata=metadata)
    said = [each.error_message async for each in responses]
    assert said == ["PERMISSION_DENIED: tenant: is not one that the API key may speak for"]


@pytest.mark.parametrize(
    ("key", "lack"), [(None, "none was given"), ("wrong", "the one that was given is not known here")]
)
async def test_no_key(guarded: Bench, key: str | None, lack: str) -> None:
    metadata, stub = None if key is None else token_metadata(key), stub_of(guarded)
    calls = [
        stub.ModelInfer(infer_request(), metadata=metadata),
        stub.ServerMetadata(pb.ServerMetadataRequest(), metadata=metadata),
        stub.ModelMetadata(pb.ModelMetadataRequest(), metadata=metadata),
        stub.ModelConfig(pb.ModelConfigRequest(), metadata=metadata),
        anext(aiter(stub.ModelStreamInfer(iter([infer_request()]), metadata=metadata))),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == CODES.UNAUTHENTICATED
        assert caught.value.details() == f"this call needs an API key: {lack}"


async def test_probes(guarded: Bench) -> None:
    assert (await stub_of(guarded).ServerLive(pb.ServerLiveRequest())).live
    assert (await stub_of(guarded).ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub_of(guarded).ModelReady(pb.ModelReadyRequest())).ready
