"""Builds the TypeScript client and runs its own tests and its example against a fake cluster."""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from coordinator.access.keys import digest_of
from elasticmm.v1 import inference_pb2 as pb
from tests.clients.fake_answers import Answer, brief, echo, endless, refuse
from tests.clients.fake_cluster import FakeCluster
from tests.clients.field_rows import ROWS, leaves_in
from tests.clients.typescript_rows import program_of
from tests.coordinator.conftest import MakeBench, make_bench

__all__ = ["make_bench"]

FOLDER = Path(__file__).parents[2] / "clients" / "typescript"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")


def scripted(cluster: FakeCluster) -> Answer:
    """Echoes, but for a few prompts."""

    def answer(request: pb.GenerateRequest, context: grpc.ServicerContext) -> Iterator[pb.GenerateEvent]:
        prompt = request.messages[-1].parts[-1].text if request.messages else "request"
        if prompt == "refuse: field":
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too hot", field="sampling.temperature")
        if prompt == "refuse: overload":
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=3)
        if prompt == "forget uploads":
            cluster.uploads.clear()
        if prompt == "proofs":
            text = ", ".join(f"{call} {proof}" for call, proof in sorted(cluster.proofs.items()))
            request = pb.GenerateRequest(messages=[pb.Message(parts=[pb.Part(text=text)])])
        if prompt == "request":
            text = json_format.MessageToJson(request, indent=None)
            request = pb.GenerateRequest(messages=[pb.Message(parts=[pb.Part(text=text)])])
        if prompt == "cache":
            text = f"{pb.CacheScope.Name(request.cache_scope)} {request.cache_salt}"
            request = pb.GenerateRequest(messages=[pb.Message(parts=[pb.Part(text=text)])])
        yield from (endless if prompt == "endless" else echo)(request, context)

    return answer


@pytest.fixture(scope="module")
def built() -> Path:
    """The compiled client; packages are installed if they are not."""
    if not (FOLDER / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--prefer-offline"], cwd=FOLDER, check=True, capture_output=True)
    done = subprocess.run(["npm", "run", "build"], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return FOLDER / "dist"


def node(*words: object, address: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ELASTICMM_ADDRESS": address}
    command = ["node", *(str(word) for word in words)]
    return subprocess.run(
        command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def num_passed(out: str) -> int:
    """As the last lines of node's test runner say."""
    found = re.search(r"^(?:#|ℹ) pass (\d+)$", out, re.MULTILINE)
    return -1 if found is None else int(found[1])


def wait_until(is_so: Callable[[], bool], timeout_s: float = 60) -> bool:
    end_s = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < end_s:
        time.sleep(0.02)
    return is_so()


def test_its_own_tests(built: Path, cluster: FakeCluster) -> None:
    cluster.answer = scripted(cluster)
    done = node("--test", built / "test" / "client.test.js", address=cluster.address)
    assert done.returncode == 0, done.stdout
    assert num_passed(done.stdout) == 23, done.stdout
    assert cluster.uploads == [b"lost", *[b"of a tenant"] * 2, b"proven"]
    assert wait_until(lambda: cluster.num_active == 0), "endless answers were not cancelled"


def test_example(built: Path, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    words = ("--address", cluster.address, "--image", tmp_path / "a.png", "What is it?")
    done = node(built / "example.js", *words, address="")
    assert (done.returncode, done.stdout) == (0, "What is it?#\n")
    assert "prefill on p-0: 1.5 to 9.0 ms" in done.stderr
    assert cluster.uploads == [b"picture"]


@pytest.fixture(scope="module")
def rows_program(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled as strictly as the client: every option that it uses is in the client's types."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.mts").write_text(program_of(ROWS, built / "src" / "index.js"))
    options = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--target", "es2022"]
    options += ["--module", "nodenext", "--types", "node", "--typeRoots", str(FOLDER / "node_modules/@types")]
    command = ["node", str(FOLDER / "node_modules/typescript/bin/tsc"), *options, str(folder / "rows.mts")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return folder / "rows.mjs"


@pytest.mark.parametrize("has_gateway", [True, False])
def test_every_field_of_a_request_can_be_set(
    rows_program: Path, cluster: FakeCluster, has_gateway: bool
) -> None:
    cluster.answer, cluster.has_gateway = brief, has_gateway
    names = [name for name, row in ROWS.items() if row.has_gateway is has_gateway]
    done = node(rows_program, cluster.address, *names, address="")
    assert done.returncode == 0, done.stderr
    for name, request in zip(names, cluster.requests, strict=True):
        assert list(leaves_in(request)) == list(leaves_in(ROWS[name].request))


async def test_resuming(built: Path, make_bench: MakeBench, tmp_path: Path) -> None:
    """With a key, which every call about the answer shows."""
    (tmp_path / "tenants.toml").write_text(f'[[tenants.a.keys]]\nsha256 = "{digest_of("mine")}"\n')
    bench = await make_bench("epd", tenants=tmp_path / "tenants.toml")
    environment = os.environ | {"ELASTICMM_SERVED_ADDRESS": bench.address, "ELASTICMM_API_KEY": "mine"}
    command = ("node", "--test", str(built / "test" / "resume.test.js"))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=FOLDER, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, num_passed(out.decode())) == (0, 7), out.decode()
    await bench.until(lambda: not bench.num_requests)
    bench.coordinator.answers.check_integrity()


def test_example_sends_what_it_is_told(built: Path, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    words = ("--address", cluster.address, "--schema", tmp_path / "schema.json", "--resumable", 9, "hi")
    assert node(built / "example.js", *words, address="").stdout == "hi\n"
    [request] = cluster.requests
    assert (request.format.json_schema, request.resumable.seconds) == ('{"type": "object"}', 9)
    assert request.request_id


def test_example_fails_with_a_word(built: Path) -> None:
    done = node(built / "example.js", "--address", "127.0.0.1:1", address="")
    assert done.returncode == 1
    assert done.stderr.startswith("NotRunning: ")


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (FOLDER / "package-lock.json").read_text()
