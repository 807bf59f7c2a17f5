"""What the coordinator says is what a stage server hears, unset against zero included."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stage_messages import DecodeCommand, Peer, PrefillCommand
from coordinator.wire.commands import from_command
from coordinator.wire.stages import to_transfers
from core.output_format import FormatKind, OutputFormat
from core.sampling import SamplingParams
from core.sequence import CacheUse, FinishReason, MediaSpan, SequenceSpec, TokenLogprobs
from core.stages import ModalityGroup, Stage
from elasticmm.v1 import inference_pb2
from kv_transfer.stats import PairCounters
from stage_servers import wire

TOKENS = st.integers(0, 2**32 - 1)
FLOATS = st.floats(0, 10, width=32)
SAMPLING = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 2**20),
    temperature=FLOATS,
    top_p=FLOATS,
    top_k=st.integers(0, 1000),
    min_p=FLOATS,
    presence_penalty=FLOATS,
    frequency_penalty=FLOATS,
    repetition_penalty=FLOATS,
    seed=st.integers(0, 2**64 - 1),
    logprobs=st.none() | st.integers(0, 20),
    logit_bias=st.dictionaries(TOKENS, st.floats(-100, 100, width=32), max_size=4).map(
        lambda biases: tuple(sorted(biases.items()))
    ),
)
FORMATS = st.just(OutputFormat(FormatKind.JSON_OBJECT)) | st.builds(
    OutputFormat,
    st.sampled_from([kind for kind in FormatKind if kind is not FormatKind.JSON_OBJECT]),
    st.text(max_size=20),
)
SPANS = st.builds(
    MediaSpan,
    item_index=st.integers(0, 9),
    first_token=st.integers(0, 999),
    num_tokens=st.integers(1, 999),
    grid=st.tuples(st.just(1), st.integers(1, 64), st.integers(1, 64)),
    digest=st.binary(min_size=32, max_size=32),
    identity=st.just(b"") | st.binary(min_size=32, max_size=32),
)
USES = st.builds(CacheUse, salt=st.binary(max_size=32), tenant=st.text(max_size=20))
SEQUENCES = st.builds(
    SequenceSpec,
    request_id=st.text(max_size=20),
    attempt=st.integers(0, 9),
    prompt=st.lists(TOKENS, max_size=50).map(tuple),
    sampling=SAMPLING,
    media=st.lists(SPANS, max_size=3).map(
        lambda spans: tuple(sorted(spans, key=lambda span: span.first_token))
    ),
    outputs=st.lists(TOKENS, max_size=9).map(tuple),
    stop_token_ids=st.frozensets(TOKENS, max_size=4),
    cache=st.none() | USES,
    format=st.none() | FORMATS,
)


@given(SEQUENCES)
def test_sequences_arrive_whole(spec: SequenceSpec) -> None:
    message = from_command(DecodeCommand(spec, Peer("p-0", "127.0.0.1:1", "host", 7)))
    arrived = type(message).FromString(message.SerializeToString())
    assert wire.sequence_from(arrived.decode.sequence) == spec
    peer = wire.peer_from(arrived.decode.prefill)
    assert (peer.instance_id, peer.endpoint, peer.host_id, peer.epoch) == ("p-0", "127.0.0.1:1", "host", 7)


@pytest.mark.parametrize(("prefix", "num_tokens"), [(None, 0), (Peer("a-0", "127.0.0.1:2", "host", 9), 48)])
def test_who_has_a_prefix_is_heard(prefix: Peer | None, num_tokens: int) -> None:
    spec = SequenceSpec("r", 0, (1, 2), SamplingParams(max_tokens=1))
    message = from_command(PrefillCommand(spec, Peer("p-0", "127.0.0.1:1", "host", 7), prefix, num_tokens))
    heard = type(message).FromString(message.SerializeToString()).prefill
    holder = wire.holder_from(heard)
    assert heard.prefix_tokens == num_tokens
    if prefix is None:
        assert holder is None
    else:
        assert holder is not None
        assert dataclasses.asdict(holder) == dataclasses.asdict(prefix)


@pytest.mark.parametrize(
    "counters",
    [
        PairCounters("d-0", "shm", 2**40, 2, 3, 2**50, 0.25, {"TLS": 1, "UNAVAILABLE": 2**40}),
        PairCounters("", "", 0, 0, 0, 0, 0.0, {}),
    ],
)
def test_counters_are_heard_as_they_were_said(counters: PairCounters) -> None:
    message = wire.counters_to(counters)
    heard = to_transfers(type(message).FromString(message.SerializeToString()))
    assert dataclasses.asdict(heard) == dataclasses.asdict(counters)


@pytest.mark.parametrize("stage", list(Stage))
def test_stages_round_trip(stage: Stage) -> None:
    assert wire.roles_from([wire.stage_number(stage)]) == {stage}


@pytest.mark.parametrize("numbers", [[], [inference_pb2.STAGE_UNSPECIFIED], [99]])
def test_what_is_no_stage_is_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="roles:"):
        wire.roles_from(numbers)  # type: ignore[arg-type]


def test_every_name_has_a_number_of_its_own() -> None:
    assert len({wire.group_number(group) for group in ModalityGroup} | {0}) == len(ModalityGroup) + 1
    assert len({wire.finish_number(finish) for finish in (None, *FinishReason)}) == len(FinishReason) + 1


def test_logprobs_keep_their_order() -> None:
    message = wire.logprobs_to(TokenLogprobs(-0.5, ((7, -0.5), (3, -1.25))))
    assert message.logprob == -0.5
    assert [(each.token_id, each.logprob) for each in message.top] == [(7, -0.5), (3, -1.25)]
