"""Questions and orders that need the cluster token."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import aio

from elasticmm.v1 import admin_pb2, admin_pb2_grpc
from elasticmm_client.caches import (
    CacheExplanation,
    ClusterCache,
    PoolName,
    cache_from_proto,
    explanation_from_proto,
    pool_number,
)
from elasticmm_client.channel import UNARY_TIMEOUT_S, open_channel, token_metadata
from elasticmm_client.errors import error_from_call
from elasticmm_client.migration import Migration, migration_from_proto
from elasticmm_client.plan import ClusterPlan, Decision, decisions_from_proto, plan_from_proto
from elasticmm_client.recent import RecentRequests, RequestTrace, recent_from_proto
from elasticmm_client.roles import group_number, stage_numbers
from elasticmm_client.shadow import ShadowReport, shadow_report_from_proto
from elasticmm_client.slo import SloReport, slo_report_from_proto
from elasticmm_client.status import ClusterStatus, status_from_proto
from elasticmm_client.tls import Tls
from elasticmm_client.trial import TrialReport, trial_report_from_proto


class AdminClient:
    """Looks at one cluster, plans it, ends it.

    address: HOST:PORT of the coordinator. token: the cluster token, or an API key with the right
    `admin` in `api_key`. tls: None speaks plain text.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._token = token or api_key
        self._channel = open_channel(address, tls)

    def status(self, timeout_s: float = UNARY_TIMEOUT_S) -> ClusterStatus:
        """Instances and load. Raises ElasticMMError."""
        return fetch_status(self._channel, self._token, timeout_s)

    def migrate(
        self, request_id: str, to_instance: str | None = None, timeout_s: float = UNARY_TIMEOUT_S
    ) -> Migration:
        """Moves a running request; see Client.migrate."""
        return ask_to_migrate(self._channel, self._token, request_id, to_instance, timeout_s)

    def plan(self, timeout_s: float = UNARY_TIMEOUT_S) -> ClusterPlan:
        """What every instance plays and is to play. Raises ElasticMMError."""
        return plan_from_proto(self._call("GetPlan", admin_pb2.GetPlanRequest(), timeout_s))

    def why(
        self,
        subject: str | None = None,
        limit: int | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
        *,
        dispatches: bool = True,
        of_shadow: bool = False,
    ) -> tuple[Decision, ...]:
        """The newest decisions about a request or instance, oldest first; all for None.

        Without `dispatches`, only those about what instances play; with `of_shadow`, those of the policy
        set in the shadow. Raises ElasticMMError.
        """
        request = admin_pb2.WhyRequest(
            subject=subject or "",
            limit=limit or 0,
            without_dispatches=not dispatches,
            of_shadow=of_shadow,
        )
        return decisions_from_proto(self._call("Why", request, timeout_s))

    def pin(
        self,
        instance_id: str,
        roles: tuple[str, ...] = (),
        group: str | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> None:
        """Has an instance play these stages for this group until `unpin`; what is left out stays as it is.

        Raises ElasticMMError (FAILED_PRECONDITION where a stage would be played by nobody), ValueError.
        """
        request = admin_pb2.PinRequest(
            instance_id=instance_id, roles=stage_numbers(roles), group=group_number(group)
        )
        self._call("Pin", request, timeout_s)

    def unpin(self, instance_id: str, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        """Leaves an instance to the policies again. Raises ElasticMMError."""
        self._call("Unpin", admin_pb2.UnpinRequest(instance_id=instance_id), timeout_s)

    def drain(self, instance_id: str, timeout_s: float | None = None) -> None:
        """Moves all work off an instance; returns when it is empty. Raises ElasticMMError."""
        self._call("Drain", admin_pb2.DrainRequest(instance_id=instance_id), timeout_s)

    def resume(self, instance_id: str, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        """Gives a drained instance work again. Raises ElasticMMError."""
        self._call("Resume", admin_pb2.ResumeRequest(instance_id=instance_id), timeout_s)

    def cache(self, timeout_s: float = UNARY_TIMEOUT_S) -> ClusterCache:
        """What the caches of all instances hold and did. Raises ElasticMMError."""
        return cache_from_proto(self._call("GetCache", admin_pb2.GetCacheRequest(), timeout_s))

    def flush_cache(
        self,
        *,
        tenant: str | None = None,
        pool: PoolName | None = None,
        instance_id: str | None = None,
        reason: str = "",
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> tuple[str, ...]:
        """Has instances forget what they keep and nobody uses; None: all of it. Returns who was told.

        Raises ElasticMMError, ValueError for an unknown pool.
        """
        request = admin_pb2.FlushCacheRequest(
            tenant=tenant or "",
            pool=pool_number(pool),
            instance_id=instance_id or "",
            reason=reason,
        )
        return tuple(self._call("FlushCache", request, timeout_s).instance_ids)

    def explain_cache(self, request_id: str, timeout_s: float = UNARY_TIMEOUT_S) -> CacheExplanation:
        """What a recent request found in caches, and why not more.

        Raises InvalidRequest (code NOT_FOUND) where it is not remembered, ElasticMMError.
        """
        request = admin_pb2.ExplainCacheRequest(request_id=request_id)
        return explanation_from_proto(self._call("ExplainCache", request, timeout_s))

    def slo_report(self, timeout_s: float = UNARY_TIMEOUT_S) -> SloReport:
        """How well the targets were met in the last minute, ten minutes and hour. Raises ElasticMMError."""
        request = admin_pb2.GetSloReportRequest()
        return slo_report_from_proto(self._call("GetSloReport", request, timeout_s))

    def start_shadow(self, policy: str, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        """Has a second policy set decide beside the acting one, without acting.

        Raises InvalidRequest for an unknown set, ElasticMMError (FAILED_PRECONDITION where another one does).
        """
        self._call("StartShadow", admin_pb2.StartShadowRequest(policy=policy), timeout_s)

    def stop_shadow(self, timeout_s: float = UNARY_TIMEOUT_S) -> ShadowReport:
        """Ends that; returns its last report. Raises ElasticMMError."""
        return shadow_report_from_proto(self._call("StopShadow", admin_pb2.StopShadowRequest(), timeout_s))

    def shadow_report(self, timeout_s: float = UNARY_TIMEOUT_S) -> ShadowReport:
        """How the set in the shadow has decided so far.

        Raises ElasticMMError (FAILED_PRECONDITION where there is none).
        """
        return shadow_report_from_proto(self._call("GetShadow", admin_pb2.GetShadowRequest(), timeout_s))

    def start_trial(
        self,
        policy: str,
        share: float | None = None,
        experiment: str = "",
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> str:
        """Gives a second policy set a share of the instances and requests, a half for None; returns the id by
        which requests are divided, a new one where none is given.

        Raises InvalidRequest for an unknown set or share, ElasticMMError (FAILED_PRECONDITION).
        """
        request = admin_pb2.StartTrialRequest(policy=policy, share=share, experiment=experiment)
        return str(self._call("StartTrial", request, timeout_s).experiment)

    def stop_trial(self, timeout_s: float = UNARY_TIMEOUT_S) -> TrialReport:
        """Gives all instances back; returns the last report. Raises ElasticMMError."""
        return trial_report_from_proto(self._call("StopTrial", admin_pb2.StopTrialRequest(), timeout_s))

    def trial_report(self, timeout_s: float = UNARY_TIMEOUT_S) -> TrialReport:
        """Both arms side by side.

        Raises ElasticMMError (FAILED_PRECONDITION where no trial runs).
        """
        return trial_report_from_proto(self._call("GetTrial", admin_pb2.GetTrialRequest(), timeout_s))

    def recent(self, limit: int | None = None, timeout_s: float = UNARY_TIMEOUT_S) -> RecentRequests:
        """Requests that run and the newest that ended, `limit` in all; all that are kept for None.

        Raises ElasticMMError.
        """
        return recent_from_proto(
            self._call("GetRecent", admin_pb2.GetRecentRequest(limit=limit or 0), timeout_s)
        )

    def trace(self, request_id: str, timeout_s: float = UNARY_TIMEOUT_S) -> RequestTrace:
        """Where the time of one of them went.

        Raises InvalidRequest (code NOT_FOUND) where it is not among them, ElasticMMError.
        """
        request = admin_pb2.GetRecentRequest(request_id=request_id)
        return recent_from_proto(self._call("GetRecent", request, timeout_s)).requests[0]

    def shutdown(self, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        """Ends the cluster. Raises ElasticMMError."""
        self._call("Shutdown", admin_pb2.ShutdownRequest(), timeout_s)

    def _call(self, method: str, request: Message, timeout_s: float | None) -> Any:
        stub = admin_pb2_grpc.AdminStub(self._channel)
        try:
            return getattr(stub, method)(request, timeout=timeout_s, metadata=token_metadata(self._token))
        except grpc.RpcError as error:
            raise error_from_call(error) from error

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetch_status(
    channel: grpc.Channel, token: str | None, timeout_s: float = UNARY_TIMEOUT_S
) -> ClusterStatus:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    metadata = token_metadata(token)
    try:
        return status_from_proto(
            stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=timeout_s, metadata=metadata)
        )
    except grpc.RpcError as error:
        raise error_from_call(error) from error


async def fetch_status_async(channel: aio.Channel, token: str | None) -> ClusterStatus:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    metadata = token_metadata(token)
    try:
        reply = await stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=UNARY_TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        raise error_from_call(error) from error
    return status_from_proto(reply)


def ask_to_migrate(
    channel: grpc.Channel,
    token: str | None,
    request_id: str,
    to_instance: str | None,
    timeout_s: float = UNARY_TIMEOUT_S,
) -> Migration:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    request = admin_pb2.MigrateRequest(request_id=request_id, instance_id=to_instance or "")
    try:
        reply = stub.Migrate(request, timeout=timeout_s, metadata=token_metadata(token))
    except grpc.RpcError as error:
        raise error_from_call(error) from error
    return migration_from_proto(reply)


async def ask_to_migrate_async(
    channel: aio.Channel, token: str | None, request_id: str, to_instance: str | None
) -> Migration:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    request = admin_pb2.MigrateRequest(request_id=request_id, instance_id=to_instance or "")
    try:
        reply = await stub.Migrate(request, timeout=UNARY_TIMEOUT_S, metadata=token_metadata(token))
    except grpc.RpcError as error:
        raise error_from_call(error) from error
    return migration_from_proto(reply)
