"""What admins and the CLI call."""

# ruff: noqa: ARG002  (gRPC dictates the signatures)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import grpc

from coordinator.access.guard import Guard
from coordinator.access.principal import Right
from coordinator.cache.admin import CacheAdmin
from coordinator.errors import CannotMigrateError
from coordinator.migration import MigrationOutcome
from coordinator.planner import Planner
from coordinator.policy.decisions import DISPATCHES
from coordinator.policy.scheduler import Slo
from coordinator.recent import Recent
from coordinator.slo.report import SloReport
from coordinator.state import CoordinatorState
from coordinator.trials import Trials
from coordinator.wire.cache_admin import from_cache_status, from_explanation, to_flush
from coordinator.wire.plan import from_decision, from_plan
from coordinator.wire.recent import from_trace
from coordinator.wire.shadow import from_shadow_report
from coordinator.wire.slo import from_slo_report
from coordinator.wire.stages import from_status, to_group, to_roles
from coordinator.wire.trial import from_trial_report, to_wish
from core.clock import Clock
from core.stages import ModalityGroup
from elasticmm.v1 import admin_pb2 as pb
from elasticmm.v1 import admin_pb2_grpc as pb_grpc

Migrate = Callable[[str, str | None], asyncio.Future[MigrationOutcome]]


class AdminServicer(pb_grpc.AdminServicer):
    def __init__(
        self,
        state: Callable[[], CoordinatorState],
        migrate: Migrate,
        planner: Planner,
        caches: CacheAdmin,
        guard: Guard,
        *,
        clock: Clock,
        slo_report: Callable[[], SloReport],
        shut_down: Callable[[], None],
        recent: Recent,
        slo: Slo,
        trials: Trials,
    ) -> None:
        self._state = state
        self._migrate = migrate
        self._planner = planner
        self._caches = caches
        self._guard = guard
        self._clock = clock
        self._slo_report = slo_report
        self._shut_down = shut_down
        self._recent = recent
        self._slo = slo
        self._trials = trials

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetStatusResponse:
        state = self._state()
        return pb.GetStatusResponse(
            model=state.model,
            version=state.version,
            uptime_s=state.uptime_s,
            requests_waiting=state.num_waiting,
            requests_running=state.num_running,
            requests_finished=state.num_finished,
            requests_failed=state.num_failed,
            instances=[from_status(instance) for instance in state.instances],
            topology=state.topology,
            instances_missing=state.num_missing,
        )

    async def Migrate(
        self, request: pb.MigrateRequest, context: grpc.aio.ServicerContext
    ) -> pb.MigrateResponse:
        outcome = await self._migrate(request.request_id, request.instance_id or None)
        if not outcome.has_moved:
            raise CannotMigrateError(outcome.reason)
        return pb.MigrateResponse(
            from_instance_id=outcome.source,
            to_instance_id=outcome.target,
            pause_ms=outcome.pause_ms,
            size_bytes=outcome.size_bytes,
            transport=outcome.transport,
        )

    async def GetPlan(
        self, request: pb.GetPlanRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetPlanResponse:
        return from_plan(self._planner.status(), self._clock.now_s())

    async def Why(self, request: pb.WhyRequest, context: grpc.aio.ServicerContext) -> pb.WhyResponse:
        without = DISPATCHES if request.without_dispatches else frozenset()
        why = self._trials.shadow_decisions if request.of_shadow else self._planner.why
        found = why(request.subject or None, request.limit or None, without)
        now_s = self._clock.now_s()
        decisions = [from_decision(each, now_s, is_shadow=request.of_shadow) for each in found]
        return pb.WhyResponse(decisions=decisions)

    async def Pin(self, request: pb.PinRequest, context: grpc.aio.ServicerContext) -> pb.PinResponse:
        roles = to_roles(request.roles) or None
        self._planner.pin(request.instance_id, roles, to_group(request.group))
        return pb.PinResponse()

    async def Unpin(self, request: pb.UnpinRequest, context: grpc.aio.ServicerContext) -> pb.UnpinResponse:
        self._planner.unpin(request.instance_id)
        return pb.UnpinResponse()

    async def Drain(self, request: pb.DrainRequest, context: grpc.aio.ServicerContext) -> pb.DrainResponse:
        await self._planner.drain(request.instance_id)
        return pb.DrainResponse()

    async def Resume(self, request: pb.ResumeRequest, context: grpc.aio.ServicerContext) -> pb.ResumeResponse:
        self._planner.resume(request.instance_id)
        return pb.ResumeResponse()

    async def GetCache(
        self, request: pb.GetCacheRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetCacheResponse:
        return from_cache_status(self._caches.status())

    async def FlushCache(
        self, request: pb.FlushCacheRequest, context: grpc.aio.ServicerContext
    ) -> pb.FlushCacheResponse:
        caller = self._guard.authenticate(context.invocation_metadata() or (), Right.ADMIN, context.peer())
        command = to_flush(request)
        flushed = self._caches.flush(
            replace(command, tenant=caller.reach(command.tenant)),
            request.instance_id or None,
            request.reason,
            context.peer() if caller.key_id is None else f"{context.peer()} key {caller.key_id}",
        )
        return pb.FlushCacheResponse(instance_ids=flushed)

    async def ExplainCache(
        self, request: pb.ExplainCacheRequest, context: grpc.aio.ServicerContext
    ) -> pb.ExplainCacheResponse:
        return from_explanation(*self._caches.explain(request.request_id))

    async def GetSloReport(
        self, request: pb.GetSloReportRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetSloReportResponse:
        return from_slo_report(self._slo_report(), self._trials.trial_report_if_any())

    async def GetRecent(
        self, request: pb.GetRecentRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetRecentResponse:
        name, limit = request.request_id, request.limit or None
        found = [self._recent.get(name)] if name else self._recent.newest(limit)
        now_s = self._clock.now_s()
        return pb.GetRecentResponse(
            requests=[from_trace(each, now_s) for each in found],
            slo_ttft_s=self._slo.ttft_s,
            slo_tpot_s=self._slo.tpot_s,
            slo_multimodal_ttft_s=self._slo.group_ttft_s(ModalityGroup.MULTIMODAL),
        )

    async def StartShadow(
        self, request: pb.StartShadowRequest, context: grpc.aio.ServicerContext
    ) -> pb.StartShadowResponse:
        self._trials.start_shadow(request.policy)
        return pb.StartShadowResponse()

    async def StopShadow(
        self, request: pb.StopShadowRequest, context: grpc.aio.ServicerContext
    ) -> pb.ShadowReport:
        return from_shadow_report(self._trials.stop_shadow())

    async def GetShadow(
        self, request: pb.GetShadowRequest, context: grpc.aio.ServicerContext
    ) -> pb.ShadowReport:
        return from_shadow_report(self._trials.shadow_report())

    async def StartTrial(
        self, request: pb.StartTrialRequest, context: grpc.aio.ServicerContext
    ) -> pb.StartTrialResponse:
        return pb.StartTrialResponse(
            experiment=self._trials.start_trial(to_wish(request), request.experiment)
        )

    async def StopTrial(
        self, request: pb.StopTrialRequest, context: grpc.aio.ServicerContext
    ) -> pb.TrialReport:
        return from_trial_report(self._trials.stop_trial())

    async def GetTrial(
        self, request: pb.GetTrialRequest, context: grpc.aio.ServicerContext
    ) -> pb.TrialReport:
        return from_trial_report(self._trials.trial_report())

    async def Shutdown(
        self, request: pb.ShutdownRequest, context: grpc.aio.ServicerContext
    ) -> pb.ShutdownResponse:
        self._shut_down()
        return pb.ShutdownResponse()
