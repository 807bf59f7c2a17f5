"""Requests of the Open Inference Protocol, and what a bench's coordinator answers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.errors import FieldError
from coordinator.oip.conversion import to_asked
from elasticmm.oip import open_inference_pb2 as pb
from elasticmm.oip import open_inference_pb2_grpc as pb_grpc
from tests.coordinator.conftest import Bench, Failure, failure_of

_FIELDS = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_CHOICES = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}

# Programs that import other people's stubs run in processes of their own: a process may know each message
# of package `inference` from one file only. KSERVE_PYTHON names a Python that has kserve: its pins and
# ours exclude each other.
PROGRAMS = Path(__file__).parent / "programs"
PYTHONS = {"tritonclient": sys.executable, "kserve": os.environ.get("KSERVE_PYTHON", sys.executable)}


def add_input(
    request: pb.ModelInferRequest,
    name: str,
    datatype: str,
    values: Iterable[Any],
    shape: list[int] | None = None,
) -> None:
    values = list(values)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(values)] if shape is None else shape)
    getattr(tensor.contents, _FIELDS[datatype]).extend(values)


def infer_request(
    text: str | None = "hello",
    *,
    images: Iterable[bytes] = (),
    messages: object = None,
    outputs: Iterable[str] = (),
    model: str = "",
    id: str = "",
    **parameters: object,
) -> pb.ModelInferRequest:
    """Typed contents; `parameters` in the field of their Python type."""
    request = pb.ModelInferRequest(model_name=model, id=id)
    if text is not None:
        add_input(request, "text_input", "BYTES", [text.encode()])
    if messages is not None:
        add_input(request, "messages", "BYTES", [json.dumps(messages).encode()])
    if images := list(images):
        add_input(request, "image", "BYTES", images)
    request.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs)
    for name, value in parameters.items():
        setattr(request.parameters[name], _CHOICES[type(value)], value)
    return request


def outputs_of(response: pb.ModelInferResponse) -> dict[str, list[Any]]:
    """Every output of a typed response."""
    outputs = {}
    for each in response.outputs:
        fields = each.contents.ListFields()
        outputs[each.name] = list(fields[0][1]) if fields else []
        assert list(each.shape) == [len(outputs[each.name])]
    return outputs


def refused(request: pb.ModelInferRequest) -> FieldError:
    """What the conversion finds wrong with it."""
    with pytest.raises(FieldError) as caught:
        to_asked(request)
    return caught.value


def stub_of(bench: Bench) -> pb_grpc.GRPCInferenceServiceStub:
    return pb_grpc.GRPCInferenceServiceStub(bench.channel)


async def infer(bench: Bench, **fields: Any) -> dict[str, list[Any]]:
    return outputs_of(await stub_of(bench).ModelInfer(infer_request(**fields)))


async def fail_infer(bench: Bench, request: pb.ModelInferRequest) -> Failure:
    """The status of a call that must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub_of(bench).ModelInfer(request)
    return failure_of(caught.value)


async def stream_infer(bench: Bench, *requests: pb.ModelInferRequest) -> list[pb.ModelStreamInferResponse]:
    """All responses on one stream, in order of arrival."""

    async def send() -> AsyncIterator[pb.ModelInferRequest]:
        for request in requests:
            yield request

    return [response async for response in stub_of(bench).ModelStreamInfer(send())]


async def run_program(name: str, *arguments: str, package: str) -> Any:
    """The JSON that it prints. Skips where it exits with 77: the package that it needs is not installed."""
    return json.loads(await run_python(PYTHONS[package], PROGRAMS / f"{name}.py", *arguments))


async def run_python(python: str, program: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        python, str(program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 77:
        pytest.skip(errors.decode().strip())
    assert process.returncode == 0, errors.decode()
    return out.decode()
