"""What moves between real stage servers: seen in the status, and through TLS."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from elasticmm_client.status import ClusterStatus, TransferStatus
from kv_transfer.tls import TlsFiles
from tests.certificates import Authority
from tests.checkpoints import build_checkpoint
from tests.exactness import Oracle, Tally
from tests.integration.asking import ask_all, make_questions, tokenizer_of
from tests.integration.running import CLI, Running, cluster

pytestmark = pytest.mark.cluster

OPTIONS = ["--dtype", "float32", "--kv-blocks", "400", "--threads", "1"]
NAME = "stage.elasticmm"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first")


def test_status_shows_the_pairs_of_shared_memory(model: Path, tmp_path: Path) -> None:
    # What is cached is read in place, and counts as no transfer.
    with cluster(tmp_path / "state", model, "e1p1d1", *OPTIONS, "--no-prefix-cache") as running:
        asked = make_questions(seed=5, count=4)
        ask_all(running.client, asked, max_tokens=8, ignore_eos=True)
        num_pictures = sum(len(each.pictures) for each in asked)
        wanted = {("e-0", "p-0", "shm"): num_pictures, ("p-0", "d-0", "shm"): len(asked)}
        status = running.wait_until(
            lambda status: {pair: each.committed for pair, each in pairs(status).items()} == wanted
        )
        for sent in pairs(status).values():
            assert sent.size_bytes > 0
            assert sent.seconds > 0
            assert (sent.in_flight, sent.aborted, sent.failures) == (0, 0, {})
        running.assert_idle()
        assert {each.quarantined_blocks for each in running.status().instances} == {0}


def pairs(status: ClusterStatus) -> dict[tuple[str, str, str], TransferStatus]:
    """By sender, receiver and transport."""
    return {
        (each.id, sent.peer, sent.transport): sent for each in status.instances for sent in each.transfers
    }


def test_a_cluster_through_tls(model: Path, tmp_path: Path) -> None:
    files = Authority(tmp_path / "tls").issue(NAME, expected=NAME)
    options = ["--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca, "--tls-name", NAME]
    oracle, tokenizer, tally = Oracle(model), tokenizer_of(model), Tally()
    asked = make_questions(seed=9, count=3)
    words = [*OPTIONS, "--transport", "grpc", "--no-reflection", *map(str, options)]
    with cluster(tmp_path / "state", model, "e1p1d1", *words) as running:
        for each, result in zip(
            asked, ask_all(running.client, asked, max_tokens=128, ignore_eos=True), strict=True
        ):
            oracle.compare(each.question(tokenizer), result.token_ids, tally)
        tally.check()
        moved = running.wait_until(lambda status: len(pairs(status)) == 2)
        assert set(pairs(moved)) == {("e-0", "p-0", "grpc"), ("p-0", "d-0", "grpc")}
        check_ports(running, files)
        command = [*CLI, "generate", "Hi", "--max-tokens", "2", "--json", "--state-dir", running.state_dir]
        assert len(json.loads(subprocess.check_output(command, timeout=60))["token_ids"]) == 2
        running.assert_idle()


def check_ports(running: Running, files: TlsFiles) -> None:
    """Every process answers those with a certificate only, and does not describe itself."""
    ports = {instance.endpoint: "Transfer" for instance in running.status().instances}
    ports |= {running.address: "StageControl", running.client.model().media_endpoint: "Media"}
    assert len(ports) == 5
    options = files.channel_options
    trusting = grpc.ssl_channel_credentials(files.ca.read_bytes())
    for target, service in ports.items():
        with grpc.secure_channel(target, files.channel_credentials(), options=options) as channel:
            assert health(channel, service) == health_pb2.HealthCheckResponse.SERVING
            assert reflection(channel) is grpc.StatusCode.UNIMPLEMENTED
        with grpc.secure_channel(target, trusting, options=options) as channel:
            assert health(channel, service) is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(target) as channel:
            assert health(channel, service) is grpc.StatusCode.UNAVAILABLE


def reflection(channel: grpc.Channel) -> grpc.StatusCode:
    """How the question fails."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as caught:
        list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter((request,))))
    code: grpc.StatusCode = caught.value.code()
    return code


def health(channel: grpc.Channel, service: str) -> object:
    """The status of the service, or of the call."""
    request = health_pb2.HealthCheckRequest(service=f"elasticmm.v1.{service}")
    try:
        return health_pb2_grpc.HealthStub(channel).Check(request, timeout=60).status
    except grpc.RpcError as error:
        return error.code()
