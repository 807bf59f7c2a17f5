"""Keys over real gRPC: the coordinator's services and the gateway's."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from coordinator.access.keys import digest_of
from core.access import token_metadata
from elasticmm.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from tests.coordinator.conftest import TOKEN, Bench, Failure, MakeBench, ask_for, failure_of, picture

FILE = f"""
[[tenants.acme.keys]]
sha256 = "{digest_of("acme's")}"

[[tenants.acme.keys]]
sha256 = "{digest_of("boss")}"
rights = ["infer", "admin"]

[[tenants.front.keys]]
sha256 = "{digest_of("gateway")}"
tenants = ["*"]
"""

MISSING, UNKNOWN = "none was given", "the one that was given is not known here"


@pytest.fixture
async def guarded(make_bench: MakeBench, tmp_path: Path) -> Bench:
    file = tmp_path / "tenants.toml"
    file.write_text(FILE)
    return await make_bench("epd", gateway=True, tenants=file, audit_log=tmp_path / "audit.jsonl")


async def ask(bench: Bench, key: str | None, **fields: object) -> int:
    """The number of tokens."""
    metadata = None if key is None else token_metadata(key)
    events = bench.inference.Generate(ask_for(max_tokens=3, **fields), metadata=metadata)
    return sum([len(event.tokens.token_ids) async for event in events])


async def failure(call: object) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return failure_of(caught.value)


async def test_generate(guarded: Bench) -> None:
    for key, tenant in (("acme's", ""), ("acme's", "acme"), ("gateway", ""), ("gateway", "acme")):
        assert await ask(guarded, key, tenant=tenant) == 3
    for key, lack in ((None, MISSING), ("wrong", UNKNOWN), (TOKEN, UNKNOWN)):
        refused = await failure(ask(guarded, key))
        assert (refused.code, refused.message) == (
            grpc.StatusCode.UNAUTHENTICATED,
            f"this call needs an API key: {lack}",
        )
    refused = await failure(ask(guarded, "acme's", tenant="front"))
    assert (refused.code, refused.field) == (grpc.StatusCode.PERMISSION_DENIED, "tenant")


async def test_a_call_that_names_no_tenant_is_the_keys_own(guarded: Bench) -> None:
    assert await ask(guarded, "gateway", request_id="r", text="whose?") == 3
    admin = admin_pb2_grpc.AdminStub(guarded.channel)
    request = admin_pb2.ExplainCacheRequest(request_id="r")
    assert (await admin.ExplainCache(request, metadata=token_metadata("boss"))).tenant == "front"


async def test_every_other_call_of_inference(guarded: Bench) -> None:
    asked = inference_pb2.GetModelRequest()
    assert (await failure(guarded.inference.GetModel(asked))).code is grpc.StatusCode.UNAUTHENTICATED
    assert (await guarded.inference.GetModel(asked, metadata=token_metadata("acme's"))).media_endpoint


async def test_admin(guarded: Bench) -> None:
    admin = admin_pb2_grpc.AdminStub(guarded.channel)
    asked = admin_pb2.GetStatusRequest()
    for key in ("boss", TOKEN):
        assert (await admin.GetStatus(asked, metadata=token_metadata(key))).model
    for key, code in (("acme's", "PERMISSION_DENIED"), ("wrong", "UNAUTHENTICATED")):
        assert (await failure(admin.GetStatus(asked, metadata=token_metadata(key)))).code.name == code
    assert (await failure(admin.GetStatus(asked))).code is grpc.StatusCode.UNAUTHENTICATED


async def test_an_admins_key_flushes_its_own_tenants_entries(guarded: Bench, tmp_path: Path) -> None:
    admin = admin_pb2_grpc.AdminStub(guarded.channel)
    await admin.FlushCache(admin_pb2.FlushCacheRequest(), metadata=token_metadata("boss"))
    other = admin_pb2.FlushCacheRequest(tenant="front")
    refused = await failure(admin.FlushCache(other, metadata=token_metadata("boss")))
    assert (refused.code, refused.field) == (grpc.StatusCode.PERMISSION_DENIED, "tenant")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {each["tenant"] for each in lines if each["event"] == "cache_flush"} == {"acme"}


async def upload(bench: Bench, key: str | None, tenant: str = "") -> bytes:
    metadata = None if key is None else token_metadata(key)
    async with grpc.aio.insecure_channel(bench.coordinator.media_endpoint) as channel:
        request = inference_pb2.UploadRequest(data=picture(), tenant=tenant)
        reply = await inference_pb2_grpc.MediaStub(channel).Upload(iter((request,)), metadata=metadata)
        return bytes(reply.digest)


async def test_uploads(guarded: Bench) -> None:
    digest = await upload(guarded, "acme's")
    image = inference_pb2.ImagePart(digest=digest)
    assert await ask(guarded, "acme's", images=(image,)) == 3
    assert (await failure(ask(guarded, "gateway", images=(image,)))).code is grpc.StatusCode.NOT_FOUND
    for key in (None, "wrong"):
        assert (await failure(upload(guarded, key))).code is grpc.StatusCode.UNAUTHENTICATED
    refused = await failure(upload(guarded, "acme's", "front"))
    assert (refused.code, refused.field) == (grpc.StatusCode.PERMISSION_DENIED, "tenant")


async def test_every_call_that_names_a_tenant_minds_whose_the_key_is(guarded: Bench) -> None:
    """Also the calls that name an answer, before it is looked for."""
    assert await ask(guarded, "gateway", request_id="theirs") == 3
    stub, metadata = guarded.inference, token_metadata("acme's")
    resume = inference_pb2.InferenceResumeRequest(request_id="theirs", tenant="front")
    cancel = inference_pb2.CancelRequest(request_id="theirs", tenant="front")
    flush = admin_pb2.FlushCacheRequest(tenant="front")
    admin = admin_pb2_grpc.AdminStub(guarded.channel)
    for call in (
        ask(guarded, "acme's", tenant="front"),
        anext(aiter(stub.Resume(resume, metadata=metadata))),
        stub.Cancel(cancel, metadata=metadata),
        upload(guarded, "acme's", "front"),
        admin.FlushCache(flush, metadata=token_metadata("boss")),
    ):
        refused = await failure(call)
        assert (refused.code, refused.field) == (grpc.StatusCode.PERMISSION_DENIED, "tenant")


async def test_an_answer_of_another_tenant_is_not_there(guarded: Bench) -> None:
    request = ask_for(max_tokens=3, request_id="theirs")
    request.resumable.seconds = 100
    stub = guarded.inference
    assert [event async for event in stub.Generate(request, metadata=token_metadata("gateway"))]
    asked = inference_pb2.InferenceResumeRequest(request_id="theirs")
    for key, tenant in (("acme's", ""), ("gateway", "acme")):
        asked.tenant = tenant
        metadata = token_metadata(key)
        refused = await failure(anext(aiter(stub.Resume(asked, metadata=metadata))))
        assert refused.code is grpc.StatusCode.NOT_FOUND
        cancel = inference_pb2.CancelRequest(request_id="theirs", tenant=tenant)
        assert (await failure(stub.Cancel(cancel, metadata=metadata))).code is grpc.StatusCode.NOT_FOUND
    asked.tenant = "front"
    assert [event async for event in stub.Resume(asked, metadata=token_metadata("gateway"))]
    await stub.Cancel(inference_pb2.CancelRequest(request_id="theirs"), metadata=token_metadata("gateway"))


async def test_keys_that_change_hold_from_then_on(guarded: Bench, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(f'[[tenants.zoo.keys]]\nsha256 = "{digest_of("new")}"\n')
    guarded.coordinator.tenancy.reload()
    assert await ask(guarded, "new") == 3
    assert (await failure(ask(guarded, "acme's"))).code is grpc.StatusCode.UNAUTHENTICATED
    audit = (tmp_path / "audit.jsonl").read_text()
    changed = next(line for line in audit.splitlines() if "tenants_changed" in line)
    assert digest_of("new")[:12] in changed
    assert "acme's" not in audit
    assert digest_of("new") not in audit
