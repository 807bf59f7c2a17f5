"""From an engine's steps to reports: new tokens, stages that ended, sequences that were given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from core.stages import Stage
from elasticmm.v1 import stage_control_pb2
from stage_servers.prefill_stage import PrefillStage
from stage_servers.reports import Key, Reports, Started
from stage_servers.wire import sequence_tokens, step_measure

if TYPE_CHECKING:
    from stage_servers.engine.records import SequenceFailure, StepOutput, TokenOutput


class StepReports:
    """Used on the event loop. `is_prefilling`: whether the sequence is still to be prefilled here; `on_end`
    is told of each that has ended.
    """

    def __init__(
        self,
        reports: Reports,
        prefill: PrefillStage,
        *,
        load: Callable[[], stage_control_pb2.Load],
        is_prefilling: Callable[[Key], bool],
        on_end: Callable[[Key], None],
    ) -> None:
        self._reports = reports
        self._prefill = prefill
        self._load = load
        self._is_prefilling = is_prefilling
        self._on_end = on_end
        self._decode_start_ns: dict[Key, int] = {}

    @property
    def times(self) -> list[Key]:
        """Sequences of which a stage has begun."""
        return [*self._decode_start_ns, *self._prefill.started]

    def step_done(self, output: StepOutput, end_ns: int) -> None:
        start_ns = end_ns - int(output.duration_s * 1e9)
        for chunk in output.prefilled:
            if self._is_prefilling(chunk.key):  # else it was given up while this step ran
                self._prefill.started.setdefault(chunk.key, Started(start_ns, chunk.first_token))
        for failure in output.failed:
            self._failed(failure)
        for token in output.tokens:
            self._note(token, end_ns)
        if output.tokens:
            report = stage_control_pb2.StepReport(
                sequences=[sequence_tokens(token) for token in output.tokens],
                load=self._load(),
                measure=step_measure(output.shape, output.duration_s),
            )
            self._reports.send(stage_control_pb2.StageMessage(step=report))
        for token in output.tokens:
            if token.finish is not None:
                self._on_end(token.key)

    def decode_began(self, key: Key) -> None:
        """The sequence came from elsewhere."""
        self._decode_start_ns[key] = time.time_ns()

    def decoded(self, key: Key, now_ns: int) -> None:
        """The sequence's decoding here has ended."""
        start_ns = self._decode_start_ns.get(key, now_ns)
        self._reports.stage_done(key, Stage.DECODE, start_ns=start_ns, end_ns=now_ns)

    def forget(self, key: Key) -> None:
        """Unknown keys are no error."""
        self._decode_start_ns.pop(key, None)
        self._prefill.started.pop(key, None)

    def _note(self, token: TokenOutput, now_ns: int) -> None:
        """Reports the stages that this token ends."""
        key = token.key
        if key in self._prefill:
            self._prefill.first_token(token)
            return
        started = self._prefill.started.pop(key, None)
        if started is not None and self._is_prefilling(key):
            self._reports.prefilled(key, started, now_ns, "local")
            self._decode_start_ns[key] = now_ns
        if token.finish is not None:
            self.decoded(key, now_ns)

    def _failed(self, failure: SequenceFailure) -> None:
        """The engine gave a sequence up; where it may go on elsewhere the coordinator dispatches it again."""
        if failure.field:
            code = grpc.StatusCode.INVALID_ARGUMENT
            self._reports.failed(failure.key, Stage.DECODE, code, failure.reason, field=failure.field)
        if self._prefill.failed(failure.key, failure.reason):
            return
        if failure.field:
            self._on_end(failure.key)
            return
        code = grpc.StatusCode.ABORTED if failure.is_retryable else grpc.StatusCode.INTERNAL
        self._reports.failed(failure.key, Stage.DECODE, code, failure.reason)
        self._on_end(failure.key)
