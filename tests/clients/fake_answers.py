"""How a fake cluster answers clients: streams of events, and refusals."""

# ruff: noqa: ARG001  (gRPC dictates the signatures)
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from elasticmm.v1 import inference_pb2 as pb

Answer = Callable[[pb.GenerateRequest, grpc.ServicerContext], Iterator[pb.GenerateEvent]]


def echo(request: pb.GenerateRequest, context: grpc.ServicerContext) -> Iterator[pb.GenerateEvent]:
    parts = request.messages[-1].parts
    text = "".join(part.text for part in parts) + "#" * sum(part.HasField("image") for part in parts)
    text = text[: request.sampling.max_tokens or None]
    yield accepted(request.request_id or "req-1", seed=request.sampling.seed)
    for index, character in enumerate(text):
        yield tokens(index, character, with_logprobs=request.sampling.HasField("logprobs"))
    yield finished(len(text))


def brief(request: pb.GenerateRequest, context: grpc.ServicerContext) -> Iterator[pb.GenerateEvent]:
    """One token, whatever is asked."""
    yield accepted(request.request_id or "req-1")
    yield tokens(0, "x")
    yield finished(1)


def endless(request: pb.GenerateRequest, context: grpc.ServicerContext) -> Iterator[pb.GenerateEvent]:
    """One token a millisecond until the call ends."""
    yield accepted("req-1")
    index = 0
    while context.is_active():
        yield tokens(index, "x")
        index += 1
        time.sleep(0.001)


def accepted(request_id: str, seed: int = 0) -> pb.GenerateEvent:
    return pb.GenerateEvent(
        accepted=pb.Accepted(request_id=request_id, model="echo", seed=seed, prompt_tokens=7)
    )


def tokens(index: int, text: str, with_logprobs: bool = False) -> pb.GenerateEvent:
    logprob = pb.TokenLogprobs(logprob=-0.5, top=[pb.Alternative(token_id=ord(text[0]), logprob=-0.5)])
    return pb.GenerateEvent(
        tokens=pb.Tokens(
            first_index=index,
            token_ids=[ord(character) for character in text],
            text=text,
            logprobs=[logprob] if with_logprobs else [],
        )
    )


def finished(num_tokens: int) -> pb.GenerateEvent:
    usage = pb.Usage(prompt_tokens=7, completion_tokens=num_tokens, media_tokens=4, cached_tokens=2)
    usage.cached_media = 1
    span = pb.StageSpan(stage=pb.STAGE_PREFILL, instance_id="p-0", start_ms=1.5, end_ms=9.0, transport="shm")
    return pb.GenerateEvent(
        finished=pb.Finished(reason=pb.FINISH_REASON_STOP, stop_string="!", usage=usage, stages=[span])
    )


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str,
    *,
    field: str | None = None,
    retry_after_s: int | None = None,
) -> None:
    """Ends the call with google.rpc details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        status.details.append(pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=retry_after_s)
        status.details.append(pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    context.abort_with_status(rpc_status.to_status(status))


def pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
