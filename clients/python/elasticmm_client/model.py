"""What is served at an address, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from elasticmm.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold; 0 where the server does not say."""

    context_tokens: int
    message_bytes: int
    media_bytes: int
    media_pixels: int
    media_per_request: int
    media_ttl_s: float  # an upload is kept this long after its last use


@dataclass(frozen=True, slots=True)
class Model:
    """Name of the served model, and where media are uploaded ("" takes them inline only)."""

    name: str
    media_endpoint: str
    limits: Limits


def model_from_proto(message: pb.GetModelResponse) -> Model:
    limits = Limits(
        context_tokens=message.limits.context_tokens,
        message_bytes=message.limits.message_bytes,
        media_bytes=message.limits.media_bytes,
        media_pixels=message.limits.media_pixels,
        media_per_request=message.limits.media_per_request,
        media_ttl_s=message.limits.media_ttl.ToTimedelta().total_seconds(),
    )
    return Model(message.model, message.media_endpoint, limits)
