"""Reports in, commands out, and records that go both ways."""

from __future__ import annotations

import struct

import pytest

from coordinator import stage_messages as records
from coordinator.errors import InvalidFieldError
from coordinator.wire import commands
from coordinator.wire import stages as wire
from core.costs import StepShape
from core.sampling import SamplingParams
from core.sequence import FinishReason, MediaSpan, SequenceSpec, TokenLogprobs
from core.stages import ModalityGroup, Stage
from elasticmm.v1 import inference_pb2
from elasticmm.v1 import stage_control_pb2 as pb

PEER = records.Peer("d0", "h:1", "here", 2**63)
ITEM = records.MediaItem(b"x" * 32, 5, 4, 3, "image/png", "h:2", "/dev/shm/x", "here")
SPAN = MediaSpan(item_index=1, first_token=3, num_tokens=4, grid=(1, 4, 4), digest=b"x" * 32, max_pixels=99)
SEQUENCE = SequenceSpec(
    request_id="r",
    attempt=3,
    prompt=(1, 2**32 - 1),
    sampling=SamplingParams(5),
    media=(SPAN,),
    outputs=(9, 8),
    stop_token_ids=frozenset({7, 2}),
)
SENT = records.TransferCounters("d0", "shm", 2**40, 2, 3, 2**50, 0.25, {"UNAVAILABLE": 1, "TLS": 2})


def info(**changes: object) -> records.InstanceInfo:
    fields = {
        "instance_id": "e0",
        "epoch": 2**63,
        "roles": frozenset({Stage.ENCODE, Stage.DECODE}),
        "group": ModalityGroup.MULTIMODAL,
        "endpoint": "h:1",
        "host_id": "here",
        "pid": 12,
        "model_fingerprint": "ab",
        "dtype": "float32",
        "device": "cpu:0",
        "attention_backend": "sdpa",
        "block_tokens": 16,
        "total_kv_blocks": 100,
        "total_embedding_blocks": 50,
        "transports": ("shm", "grpc"),
        "kv_bytes_per_token": 512,
        "max_sequences": 64,
    }
    return records.InstanceInfo(**{**fields, **changes})


@pytest.mark.parametrize("each", [info(), info(roles=frozenset(), group=ModalityGroup.SHARED, epoch=0)])
def test_info_both_ways(each: records.InstanceInfo) -> None:
    assert wire.to_info(wire.from_info(each)) == each


def test_an_unspecified_group_is_shared() -> None:
    assert wire.to_info(pb.Register()).group is ModalityGroup.SHARED


def test_load_and_item_both_ways() -> None:
    load = records.InstanceLoad(1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert wire.to_load(wire.from_load(load)) == load
    assert wire.to_media_item(wire.from_media_item(ITEM)) == ITEM


@pytest.mark.parametrize("each", [SENT, records.TransferCounters("", "", 0, 0, 0, 0, 0.0, {})])
def test_transfers_both_ways(each: records.TransferCounters) -> None:
    assert wire.to_transfers(wire.from_transfers(each)) == each


def test_step_report() -> None:
    run = pb.SequenceTokens(request_id="r", attempt=0, first_index=0, token_ids=[0, 5])
    run.logprobs.add(logprob=0.0)
    run.logprobs.add(logprob=-1.0).top.add(token_id=0, logprob=-1.0)
    run.finish = inference_pb2.FINISH_REASON_LENGTH
    report = wire.to_report(pb.StageMessage(step=pb.StepReport(sequences=[run])))
    logprobs = (TokenLogprobs(0.0), TokenLogprobs(-1.0, ((0, -1.0),)))
    assert report == records.StepReport(
        (records.TokenRun("r", 0, 0, (0, 5), logprobs, FinishReason.LENGTH),), load=None
    )


def test_a_step_without_load_is_no_empty_load() -> None:
    message = pb.StageMessage(step=pb.StepReport(load=pb.Load()))
    assert wire.to_report(message) == records.StepReport((), records.InstanceLoad())


def test_stage_failure_and_heartbeat() -> None:
    stage = pb.StageReport(
        request_id="r",
        attempt=1,
        stage=inference_pb2.STAGE_ENCODE,
        item_index=2,
        start_ns=3,
        end_ns=4,
        transport="shm",
        cached_tokens=6,
        device_s=0.5,
    )
    assert wire.to_report(pb.StageMessage(stage=stage)) == records.StageReport(
        "r", 1, Stage.ENCODE, 2, 3, 4, "shm", 6, 0.5
    )
    failure = pb.FailureReport(request_id="r", attempt=1, item_index=2, code=14, message="m", field="f")
    assert wire.to_report(pb.StageMessage(failure=failure)) == records.FailureReport(
        "r", 1, None, 2, 14, "m", "f"
    )
    load, roles = pb.Load(leases=1, quarantined_blocks=2), [inference_pb2.STAGE_DECODE]
    heartbeat = pb.Heartbeat(load=load, roles=roles, transfers=[wire.from_transfers(SENT)])
    assert wire.to_report(pb.StageMessage(heartbeat=heartbeat)) == records.HeartbeatReport(
        records.InstanceLoad(leases=1, quarantined_blocks=2), frozenset({Stage.DECODE}), None, (SENT,)
    )
    heartbeat.group = pb.MODALITY_GROUP_TEXT
    report = wire.to_report(pb.StageMessage(heartbeat=heartbeat))
    assert isinstance(report, records.HeartbeatReport)
    assert report.group is ModalityGroup.TEXT


def test_step_measure() -> None:
    measure = pb.StepMeasure(new_tokens=3, attended=4.5, sequences=2, context_tokens=9, seconds=0.25)
    report = wire.to_report(pb.StageMessage(step=pb.StepReport(measure=measure)))
    assert report == records.StepReport((), None, records.StepMeasure(StepShape(3, 4.5, 2, 9), 0.25))
    assert wire.to_report(pb.StageMessage(step=pb.StepReport())) == records.StepReport(())


def test_migration_report() -> None:
    message = pb.MigrationReport(
        request_id="r", attempt=1, new_attempt=2, has_moved=True, pause_ns=3, size_bytes=4, transport="shm"
    )
    assert wire.to_report(pb.StageMessage(migration=message)) == records.MigrationReport(
        "r", 1, 2, True, "", 3, 4, "shm"
    )
    stayed = pb.MigrationReport(request_id="r", reason="no room")
    assert wire.to_report(pb.StageMessage(migration=stayed)) == records.MigrationReport(
        "r", 0, 0, False, "no room"
    )


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.StageMessage(), "message"),
        (pb.StageMessage(register=pb.Register()), "message"),
        (pb.StageMessage(stage=pb.StageReport()), "stage.stage"),
        (
            pb.StageMessage(
                step=pb.StepReport(
                    sequences=[pb.SequenceTokens(token_ids=[1, 2], logprobs=[inference_pb2.TokenLogprobs()])]
                )
            ),
            "step.sequences.logprobs",
        ),
    ],
)
def test_what_is_no_report(message: pb.StageMessage, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        wire.to_report(message)
    assert caught.value.field == field


def test_sequence_travels_whole() -> None:
    message = commands.from_sequence(SEQUENCE)
    assert struct.unpack("<2I", message.prompt_token_ids) == (1, 2**32 - 1)
    assert (message.request_id, message.attempt) == ("r", 3)
    assert list(message.output_token_ids) == [9, 8]
    assert list(message.stop_token_ids) == [2, 7]
    (span,) = message.media
    assert (span.item_index, span.first_token, span.num_tokens, list(span.grid)) == (1, 3, 4, [1, 4, 4])
    assert span.digest == SPAN.digest
    assert message.sampling.HasField("seed")


def test_work_commands() -> None:
    encode = commands.from_command(records.EncodeCommand("r", 3, ITEM, SPAN, PEER)).encode
    assert (encode.request_id, encode.attempt, encode.item_index) == ("r", 3, 1)
    assert encode.media.segment == "/dev/shm/x"
    assert (encode.prefill.instance_id, encode.prefill.epoch) == ("d0", 2**63)
    prefill = commands.from_command(records.PrefillCommand(SEQUENCE, PEER)).prefill
    assert (prefill.sequence.request_id, prefill.decode.endpoint) == ("r", "h:1")
    decode = commands.from_command(records.DecodeCommand(SEQUENCE, PEER)).decode
    assert (decode.sequence.attempt, decode.prefill.host_id) == (3, "here")
    migrate = commands.from_command(records.MigrateCommand("r", 3, 4, PEER)).migrate
    assert (migrate.request_id, migrate.attempt, migrate.new_attempt) == ("r", 3, 4)
    assert (migrate.to.instance_id, migrate.to.epoch) == ("d0", 2**63)


def test_other_commands() -> None:
    registered = commands.from_command(records.RegisteredCommand("e0", 250, 107)).registered
    assert (registered.instance_id, registered.heartbeat_interval_ms) == ("e0", 250)
    assert registered.tpot_target_us == 107
    cancel = commands.from_command(records.CancelCommand("r", 0))
    assert cancel.WhichOneof("message") == "cancel"
    roles = commands.from_command(records.SetRolesCommand(frozenset({Stage.PREFILL}))).set_roles.roles
    assert list(roles) == [inference_pb2.STAGE_PREFILL]
    command = records.SetRolesCommand(frozenset({Stage.PREFILL}), ModalityGroup.TEXT)
    assert commands.from_command(command).set_roles.group == pb.MODALITY_GROUP_TEXT
    assert commands.from_command(records.StopCommand()).WhichOneof("message") == "stop"
