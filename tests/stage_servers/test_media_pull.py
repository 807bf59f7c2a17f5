"""A media item's bytes from a gateway on another host."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from core.tls import TlsFiles, add_port
from elasticmm.v1 import media_store_pb2 as pb
from elasticmm.v1 import media_store_pb2_grpc as pb_grpc
from stage_servers.media_pull import MediaGoneError, MediaPuller, MediaSource
from tests.certificates import LOOPBACK, Authority


class Store(pb_grpc.MediaStoreServicer):
    async def Pull(self, request: pb.PullRequest, context: grpc.aio.ServicerContext) -> None:
        for piece in (b"pic", request.digest):
            await context.write(pb.PullResponse(data=piece))


async def pull(of_gateway: TlsFiles | None, of_puller: TlsFiles | None) -> bytes:
    server = grpc.aio.server()
    pb_grpc.add_MediaStoreServicer_to_server(Store(), server)
    endpoint = f"{LOOPBACK}:{add_port(server, f'{LOOPBACK}:0', of_gateway)}"
    await server.start()
    puller = MediaPuller("t", of_puller)
    try:
        return await puller.pull(MediaSource(b"ture", 7, endpoint, "", "elsewhere"))
    finally:
        await puller.close()
        await server.stop(None)


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_bytes_arrive(tmp_path: Path, is_encrypted: bool) -> None:
    files = Authority(tmp_path).issue() if is_encrypted else None
    assert await pull(files, files) == b"picture"


async def test_a_gateway_of_another_authority_or_none_is_not_believed(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "a").issue(), Authority(tmp_path / "b").issue()
    for gateway, puller in ((theirs, ours), (None, ours), (ours, None)):
        with pytest.raises(MediaGoneError, match="UNAVAILABLE"):
            await pull(gateway, puller)
