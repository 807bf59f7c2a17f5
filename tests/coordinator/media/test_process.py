"""The real gateway process: started, restarted, and gone with its coordinator."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from PIL import Image

from coordinator.access.keys import digest_of
from coordinator.calls import ImageSource
from coordinator.config import CoordinatorConfig, MediaLimits
from coordinator.errors import NotFoundError
from coordinator.listening.listeners import MEDIA
from coordinator.media.process import GatewayProcess
from coordinator.server import Coordinator
from core.access import token_metadata
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc
from tests.coordinator.conftest import CHECKPOINT, TOKEN, Bench, picture, until
from tests.coordinator.media.test_gateway import settings


def segments_of(pid: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"elasticmm-media-{pid}-*"))


async def test_a_killed_gateway_comes_back_on_its_port(make_bench) -> None:
    bench: Bench = await make_bench("epd")
    coordinator: Coordinator = bench.coordinator
    port = await coordinator.gateway.start()
    image = pb.ImagePart(data=picture())
    assert len((await bench.ask(images=(image,), max_tokens=2)).token_ids) == 2
    pid = coordinator.gateway.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not coordinator.media_endpoint)
    assert (await bench.fail(images=(image,))).code is grpc.StatusCode.UNAVAILABLE
    assert len((await bench.ask(text="text goes on", max_tokens=2)).token_ids) == 2
    await until(lambda: coordinator.media_endpoint)
    assert coordinator.media_endpoint == f"127.0.0.1:{port}"
    assert coordinator.gateway.pid != pid
    assert not segments_of(pid)
    await until_media(bench, image)
    await bench.assert_idle()


async def test_new_keys_reach_the_running_gateway_and_the_next(make_bench, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(keys_of("first"))
    bench: Bench = await make_bench("epd", tenants=tenants)
    coordinator: Coordinator = bench.coordinator
    await coordinator.gateway.start()
    assert [await upload_status(bench, key) for key in ("first", "second")] == ["OK", "UNAUTHENTICATED"]
    # So many that they do not fit a pipe.
    tenants.write_text(keys_of("second", *map(str, range(2000))))
    coordinator.tenancy.reload()
    async with asyncio.timeout(60):
        while await upload_status(bench, "first") != "UNAUTHENTICATED":
            await asyncio.sleep(0.01)
    assert await upload_status(bench, "second") == "OK"
    assert coordinator.gateway.pid is not None
    os.kill(coordinator.gateway.pid, signal.SIGKILL)
    await until(lambda: not coordinator.media_endpoint)
    await until(lambda: coordinator.media_endpoint)
    assert [await upload_status(bench, key) for key in ("first", "1999")] == ["UNAUTHENTICATED", "OK"]
    tenants.write_text("")  # which closes the door to all, also at a gateway that comes later
    coordinator.tenancy.reload()
    os.kill(coordinator.gateway.pid, signal.SIGKILL)
    await until(lambda: not coordinator.media_endpoint)
    await until(lambda: coordinator.media_endpoint)
    assert await upload_status(bench, "1999") == "UNAUTHENTICATED"


async def test_new_shares_reach_the_running_gateway(make_bench, tmp_path: Path) -> None:
    tenants, piece = tmp_path / "tenants.toml", picture("BMP", (40, 40))
    tenants.touch()
    limits = MediaLimits(store_bytes=4 * len(piece))
    bench: Bench = await make_bench(tenants=tenants, media=limits)
    await bench.coordinator.gateway.start()
    tenants.write_text("[tenants.small]\ncache_share = 0.25\n[tenants.big]\ncache_share = 0.75\n")
    bench.coordinator.tenancy.reload()
    colours = iter(range(10_000))

    async def holds(tenant: str, wanted: int) -> bool:
        """Whether the first of so many is there after the other tenant has brought four more."""
        digest, *_ = [await bring(bench, tenant, next(colours)) for _ in range(wanted)]
        other = "big" if tenant == "small" else "small"
        for _ in range(4):
            await bring(bench, other, next(colours))
        return await is_kept(bench, tenant, digest)

    async with asyncio.timeout(60):
        while not await holds("big", 3):
            await asyncio.sleep(0.05)
    assert not await holds("small", 2)
    assert await holds("small", 1)


async def bring(bench: Bench, tenant: str, number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 40), (number % 256, number // 256, 0)).save(data, "BMP")
    async with grpc.aio.insecure_channel(bench.coordinator.media_endpoint) as channel:
        requests = iter((pb.UploadRequest(data=data.getvalue(), tenant=tenant),))
        reply = await inference_pb2_grpc.MediaStub(channel).Upload(requests, wait_for_ready=True)
        return bytes(reply.digest)


async def is_kept(bench: Bench, tenant: str, digest: bytes) -> bool:
    try:
        await bench.coordinator.media.resolve("probe", tenant, ImageSource(digest=digest), "image")
    except NotFoundError:
        return False
    bench.coordinator.media.release("probe")
    return True


def keys_of(*secrets: str) -> str:
    return "".join(f'[[tenants.a.keys]]\nsha256 = "{digest_of(secret)}"\n' for secret in secrets)


async def upload_status(bench: Bench, key: str) -> str:
    async with grpc.aio.insecure_channel(bench.coordinator.media_endpoint) as channel:
        requests = iter((pb.UploadRequest(data=picture()),))
        stub = inference_pb2_grpc.MediaStub(channel)
        try:
            await stub.Upload(requests, metadata=token_metadata(key), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


async def until_media(bench: Bench, image: pb.ImagePart) -> None:
    """The channel to the gateway may still be waiting to connect again."""
    async with asyncio.timeout(60):
        while await status_of(bench, image) is grpc.StatusCode.UNAVAILABLE:
            await asyncio.sleep(0.05)
    assert await status_of(bench, image) is grpc.StatusCode.OK


async def status_of(bench: Bench, image: pb.ImagePart) -> grpc.StatusCode:
    try:
        await bench.ask(images=(image,), max_tokens=2)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_stopping_leaves_no_segment() -> None:
    coordinator = Coordinator(
        CoordinatorConfig(model_path=CHECKPOINT, cluster_token=TOKEN, shutdown_grace_s=0.05)
    )
    await coordinator.start()
    health = await coordinator.health.Check(health_pb2.HealthCheckRequest(service=MEDIA), None)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    pid = coordinator.gateway.pid
    await coordinator.media.resolve("r", "default", ImageSource(data=picture()), "image")
    assert segments_of(pid)
    await coordinator.stop()
    assert not segments_of(pid)


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_the_token_is_in_no_argument() -> None:
    gateway = GatewayProcess(settings(), lambda _: None)
    await gateway.start()
    try:
        assert TOKEN.encode() not in arguments_of(gateway.pid)
    finally:
        await gateway.stop()


def test_it_ends_with_its_parent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "coordinator.media.gateway"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdin.write(settings().to_line())
    process.stdin.flush()
    assert b"port" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
