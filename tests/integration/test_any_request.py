"""All doors of a cluster of real processes, asked for anything: it stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given

from elasticmm.oip import open_inference_pb2 as oip
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from tests.coordinator.fuzz.calls import GENERATES
from tests.coordinator.fuzz.examples import examples
from tests.coordinator.fuzz.inferences import INFERS
from tests.coordinator.fuzz.outcomes import check_events, check_refusal
from tests.coordinator.fuzz.test_openapi import CASES, check_error
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

_BOUND_S = 60.0
_TEXT = "what is the large circle?"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Every module starts with the same tokens, and ends with them."""
    model = Path("models/demo/checkpoint").resolve()
    options = ["--dtype", "float32", "--kv-blocks", "64"]
    with cluster(tmp_path_factory.mktemp("fuzz"), model, "e1p1d1", *options) as started:
        before = tokens_of(started)
        yield started
        assert tokens_of(started) == before
        started.assert_idle()


@pytest.fixture(scope="module")
def channel(running: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.address) as channel:
        yield channel


def tokens_of(running: Running) -> tuple[int, ...]:
    answer = running.client.generate(_TEXT, max_tokens=24, seed=5, temperature=1.0, ignore_eos=True)
    return tuple(answer.result().token_ids)


@examples(60)
@given(GENERATES)
def test_generate(channel: grpc.Channel, request: pb.GenerateRequest) -> None:
    try:
        check_events(list(rpc.InferenceStub(channel).Generate(request, timeout=_BOUND_S)))
    except grpc.RpcError as error:
        check_refusal(error)


@examples(60)
@given(INFERS)
def test_infer(channel: grpc.Channel, request: oip.ModelInferRequest) -> None:
    ask: Any = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    try:
        assert ask(request, timeout=_BOUND_S).outputs
    except grpc.RpcError as error:
        check_refusal(error)


@examples(60)
@given(CASES)
def test_http(running: Running, case: Any) -> None:
    said = case.as_transport_kwargs(base_url=running.http)
    body = json.dumps(said["json"]).encode() if "json" in said else said.get("data")
    with httpx.Client(timeout=_BOUND_S) as client:
        response = client.request(said["method"], said["url"], headers=said["headers"], content=body)
    if response.status_code != 200:
        check_error(response)
