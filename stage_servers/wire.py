"""Conversions between the wire's messages and the core records, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.costs import StepShape
from core.output_format import FormatKind, OutputFormat
from core.sampling import SamplingParams
from core.sequence import CacheUse, FinishReason, MediaSpan, SequenceSpec, TokenLogprobs
from core.stages import ModalityGroup, Roles, Stage
from elasticmm.v1 import inference_pb2, stage_control_pb2
from kv_transfer.layout import PayloadKind
from kv_transfer.sender import PeerAddress
from kv_transfer.stats import PairCounters

if TYPE_CHECKING:
    from stage_servers.engine.records import TokenOutput

_STAGES = {
    Stage.ENCODE: inference_pb2.STAGE_ENCODE,
    Stage.PREFILL: inference_pb2.STAGE_PREFILL,
    Stage.DECODE: inference_pb2.STAGE_DECODE,
}
_STAGES_BACK = {number: stage for stage, number in _STAGES.items()}
_GROUPS = {
    ModalityGroup.TEXT: stage_control_pb2.MODALITY_GROUP_TEXT,
    ModalityGroup.MULTIMODAL: stage_control_pb2.MODALITY_GROUP_MULTIMODAL,
    ModalityGroup.SHARED: stage_control_pb2.MODALITY_GROUP_SHARED,
}
_GROUPS_BACK = {number: group for group, number in _GROUPS.items()}
_POOLS_BACK = {
    stage_control_pb2.CACHE_POOL_KV: PayloadKind.KV,
    stage_control_pb2.CACHE_POOL_EMBEDDING: PayloadKind.EMBEDDING,
}
_FINISH = {
    FinishReason.STOP: inference_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
}


def stage_number(stage: Stage) -> inference_pb2.Stage.ValueType:
    return _STAGES[stage]


def group_number(group: ModalityGroup) -> stage_control_pb2.ModalityGroup.ValueType:
    return _GROUPS[group]


def group_from(number: stage_control_pb2.ModalityGroup.ValueType) -> ModalityGroup | None:
    """None for an unspecified one."""
    return _GROUPS_BACK.get(number)


def step_measure(shape: StepShape, seconds: float) -> stage_control_pb2.StepMeasure:
    return stage_control_pb2.StepMeasure(
        new_tokens=shape.new_tokens,
        attended=shape.attended,
        sequences=shape.sequences,
        context_tokens=shape.context_tokens,
        seconds=seconds,
    )


def finish_number(finish: FinishReason | None) -> inference_pb2.FinishReason.ValueType:
    return inference_pb2.FINISH_REASON_UNSPECIFIED if finish is None else _FINISH[finish]


def roles_from(numbers: Sequence[inference_pb2.Stage.ValueType]) -> Roles:
    """Raises ValueError for a number that is no stage."""
    unknown = [number for number in numbers if number not in _STAGES_BACK]
    if unknown or not numbers:
        raise ValueError(f"roles: {list(numbers)} are not stages")
    return frozenset(_STAGES_BACK[number] for number in numbers)


def peer_from(message: stage_control_pb2.Peer) -> PeerAddress:
    return PeerAddress(
        instance_id=message.instance_id,
        endpoint=message.endpoint,
        host_id=message.host_id,
        epoch=message.epoch,
    )


def holder_from(command: stage_control_pb2.PrefillCommand) -> PeerAddress | None:
    """Who has the sequence's prefix; None: nobody to ask."""
    return peer_from(command.prefix) if command.HasField("prefix") else None


def counters_to(counters: PairCounters) -> stage_control_pb2.TransferCounters:
    return stage_control_pb2.TransferCounters(
        peer_instance_id=counters.peer_instance_id,
        transport=counters.transport,
        committed=counters.committed,
        aborted=counters.aborted,
        in_flight=counters.in_flight,
        size_bytes=counters.size_bytes,
        seconds=counters.seconds,
        failures=counters.failures,
    )


def span_from(message: stage_control_pb2.MediaSpan) -> MediaSpan:
    return MediaSpan(
        item_index=message.item_index,
        first_token=message.first_token,
        num_tokens=message.num_tokens,
        grid=tuple(message.grid),
        digest=message.digest,
        identity=message.identity,
        max_pixels=message.max_pixels if message.HasField("max_pixels") else None,
    )


def sequence_from(message: stage_control_pb2.Sequence) -> SequenceSpec:
    return SequenceSpec(
        request_id=message.request_id,
        attempt=message.attempt,
        prompt=tuple(np.frombuffer(message.prompt_token_ids, dtype="<u4").tolist()),
        sampling=_sampling_from(message.sampling),
        media=tuple(sorted(map(span_from, message.media), key=lambda span: span.first_token)),
        outputs=tuple(message.output_token_ids),
        stop_token_ids=frozenset(message.stop_token_ids),
        cache=cache_from(message.cache) if message.HasField("cache") else None,
        format=format_from(message.format) if message.HasField("format") else None,
        tenant=message.tenant,
    )


def format_from(message: inference_pb2.OutputFormat) -> OutputFormat:
    """Raises ValueError for a kind that this version does not know."""
    kind = FormatKind(message.WhichOneof("kind") or "unset")
    return OutputFormat(kind, "" if kind is FormatKind.JSON_OBJECT else getattr(message, kind.value))


def cache_from(message: stage_control_pb2.CacheUse) -> CacheUse:
    return CacheUse(message.salt, message.tenant)


def _sampling_from(message: inference_pb2.SamplingParams) -> SamplingParams:
    """The coordinator sends complete parameters: every field but logprobs is set."""
    return SamplingParams(
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_p=message.top_p,
        top_k=message.top_k,
        min_p=message.min_p,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        repetition_penalty=message.repetition_penalty,
        seed=message.seed,
        logprobs=message.logprobs if message.HasField("logprobs") else None,
        logit_bias=tuple(sorted(message.logit_bias.items())),
    )


def logprobs_to(record: TokenLogprobs) -> inference_pb2.TokenLogprobs:
    return inference_pb2.TokenLogprobs(
        logprob=record.logprob,
        top=[inference_pb2.Alternative(token_id=token, logprob=value) for token, value in record.top],
    )


def sequence_tokens(token: TokenOutput) -> stage_control_pb2.SequenceTokens:
    return stage_control_pb2.SequenceTokens(
        request_id=token.key[0],
        attempt=token.key[1],
        first_index=token.index,
        token_ids=[token.token_id],
        logprobs=[logprobs_to(token.logprobs)] if token.logprobs is not None else [],
        finish=finish_number(token.finish),
    )


def cached_pool_from(number: stage_control_pb2.CachePool.ValueType) -> PayloadKind | None:
    """None for an unspecified one: all pools."""
    return _POOLS_BACK.get(number)
