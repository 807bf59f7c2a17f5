"""Builds the C++ example with the packages of the system, and runs it against a fake cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from tests.clients.cpp_rows import program_of
from tests.clients.fake_answers import refuse
from tests.clients.fake_cluster import FakeCluster
from tests.clients.field_rows import ROWS

FOLDER = Path(__file__).parents[2] / "clients" / "cpp"
PROGRAM = """
#include <grpcpp/grpcpp.h>
#include <iostream>
#include "elasticmm/v1/inference.grpc.pb.h"
namespace em = elasticmm::v1;
int main(int next_index, char** words) {
  const std::string address = words[1];
  grpc::ClientContext context, next_context;
  BODY
}
"""
TOOLS = ("g++", "cmake", "pkg-config", "protoc", "grpc_cpp_plugin")


def has_packages() -> bool:
    if not all(map(shutil.which, TOOLS)):
        return False
    return subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode == 0


pytestmark = [
    pytest.mark.skipif(not has_packages(), reason="needs g++, cmake, pkg-config, protoc and gRPC for C++"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("cpp")
    for command in (["cmake", "-S", FOLDER, "-B", build], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "example"


def run(example: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(example), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_prints_the_answer(example: Path, cluster: FakeCluster) -> None:
    done = run(example, cluster.address, "hé!", 3)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hé!\n3 tokens\n", "")
    assert cluster.requests[0].sampling.max_tokens == 3


def test_says_why_not(example: Path, cluster: FakeCluster) -> None:
    cluster.answer = lambda _, context: iter(
        [refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "too hot", field="sampling.temperature")]  # type: ignore[list-item]
    )
    done = run(example, cluster.address, "hi")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "status 3: too hot\n")


def test_what_the_readme_says_compiles(example: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```cpp\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    source = tmp_path / "readme.cpp"
    source.write_text(PROGRAM.replace("BODY", "".join(blocks)))
    flags = subprocess.run(
        ["pkg-config", "--cflags", "grpc++", "protobuf"], capture_output=True, text=True, check=True
    )
    command = [
        "g++",
        "-std=c++17",
        "-fsyntax-only",
        f"-I{example.parent}",
        *flags.stdout.split(),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_field_of_a_request_can_be_set(example: Path, tmp_path: Path) -> None:
    """By the stubs' own setters, which are all there is to this client."""
    source, program = tmp_path / "rows.cpp", tmp_path / "rows"
    source.write_text(program_of([row.request for row in ROWS.values()]))
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"], capture_output=True, text=True, check=True
    )
    library = example.parent / "libelasticmm_protos.a"
    command = ["g++", "-std=c++17", f"-I{example.parent}", "-o", program, source, library]
    done = subprocess.run(
        [*map(str, command), *flags.stdout.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for index, (name, row) in enumerate(ROWS.items()):
        made = subprocess.run([program, str(index)], capture_output=True, check=True, timeout=60)
        assert pb.GenerateRequest.FromString(made.stdout) == row.request, name


def test_usage(example: Path) -> None:
    assert run(example, "127.0.0.1:1").returncode == 2
