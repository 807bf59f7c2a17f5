"""A coordinator and media gateway that echo, for tests of what speaks to them.

The answer to a request is the text of its last message, one character a token
(its id the code point), followed by one "#" per picture.
"""

# ruff: noqa: ARG002  (gRPC dictates the signatures)
from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import duration_pb2

from core.access import has_token
from elasticmm.v1 import admin_pb2, admin_pb2_grpc, stage_control_pb2
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from tests.clients.fake_answers import Answer, echo, refuse
from tests.clients.fake_records import assignment, instance, kv_cache, shadowed, traced, tried

TOKEN = "a-cluster-token"


class FakeCluster(rpc.InferenceServicer, rpc.MediaServicer, admin_pb2_grpc.AdminServicer):
    """Everything on one port. `answer` may be replaced; what arrived is kept."""

    def __init__(self) -> None:
        self.answer: Answer = echo
        self.requests: list[pb.GenerateRequest] = []
        self.uploads: list[bytes] = []
        self.proofs: dict[str, str] = {}  # the newest authorization of each kind of call
        self.brought: set[tuple[str, bytes]] = set()  # tenants and digests of all uploads
        self.started = threading.Event()  # a Generate call arrived
        self.num_active = 0  # Generate calls that have not come to their end
        self.ended = threading.Event()  # a Generate call came to its end, of any kind
        self.is_shut_down = False
        self.orders: list[tuple[str, Any]] = []  # pin, unpin, drain, resume
        self.never_empty: set[str] = set()  # instances that a drain waits for in vain
        self.has_gateway = True
        self.has_shadow = True
        self.trial: admin_pb2.TrialReport | None = None  # as the SLO report and the plan tell of it
        self.media_ttl_s = 600
        self.transfers: list[stage_control_pb2.TransferCounters] = []  # of e-0
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        rpc.add_InferenceServicer_to_server(self, self._server)
        rpc.add_MediaServicer_to_server(self, self._server)
        admin_pb2_grpc.add_AdminServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateEvent]:
        self._note_proof("Generate", context)
        self.requests.append(request)
        self.num_active += 1
        self.started.set()
        context.add_callback(self._note_end)
        self._check_digests(request, context)
        yield from self.answer(request, context)

    def _check_digests(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> None:
        here = {hashlib.sha256(data).digest() for data in self.uploads}
        known = {digest for tenant, digest in self.brought if tenant == request.tenant and digest in here}
        for number, message in enumerate(request.messages):
            for index, part in enumerate(message.parts):
                if part.image.digest and part.image.digest not in known:
                    field = f"messages[{number}].parts[{index}].image.digest"
                    refuse(context, grpc.StatusCode.NOT_FOUND, "is not in the store", field=field)

    def _note_proof(self, call: str, context: grpc.ServicerContext) -> None:
        metadata = {name: str(value) for name, value in context.invocation_metadata()}
        self.proofs[call] = metadata.get("authorization", "")

    def _note_end(self) -> None:
        self.num_active -= 1
        self.ended.set()

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        self._note_proof("GetModel", context)
        limits = pb.Limits(context_tokens=512, media_ttl=duration_pb2.Duration(seconds=self.media_ttl_s))
        endpoint = self.address if self.has_gateway else ""
        return pb.GetModelResponse(model="echo", media_endpoint=endpoint, limits=limits)

    def Upload(
        self, requests: Iterator[pb.UploadRequest], context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        self._note_proof("Upload", context)
        messages = list(requests)
        data = b"".join(each.data for each in messages)
        if data.startswith(b"broken"):
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "not a picture", field="data")
        self.uploads.append(data)
        digest = hashlib.sha256(data).digest()
        self.brought.add((messages[0].tenant, digest))
        return pb.UploadResponse(digest=digest, size_bytes=len(data))

    def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetStatusResponse:
        check_token(context)
        return admin_pb2.GetStatusResponse(
            model="echo",
            topology="e1pd1",
            requests_running=2,
            instances=[instance("pd-0", [2, 3]), instance("e-0", [1], self.transfers)],
        )

    def Migrate(
        self, request: admin_pb2.MigrateRequest, context: grpc.ServicerContext
    ) -> admin_pb2.MigrateResponse:
        check_token(context)
        if request.request_id != "running":
            refuse(context, grpc.StatusCode.NOT_FOUND, "is not running", field="request_id")
        if request.instance_id == "full":
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "full has no room")
        return admin_pb2.MigrateResponse(
            from_instance_id="d-0",
            to_instance_id=request.instance_id or "d-1",
            pause_ms=1.5,
            size_bytes=3 << 20,
            transport="shm",
        )

    def GetPlan(
        self, request: admin_pb2.GetPlanRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetPlanResponse:
        check_token(context)
        serving = admin_pb2.PlannedInstance(
            instance_id="pd-0",
            present=assignment([2, 3]),
            state="serving",
            since_s=65,
            is_pinned=True,
            is_drained="pd-0" in self.never_empty,
        )
        moving = admin_pb2.PlannedInstance(
            instance_id="e-0",
            present=assignment([1]),
            wanted=assignment([2], stage_control_pb2.MODALITY_GROUP_TEXT),
            state="clearing, to text:p",
            since_s=1,
            last_failure="switching took over 5 s",
            decodes=admin_pb2.Pace(measured_s=3, profiled_s=2),
        )
        for arm in () if self.trial is None else self.trial.arms:
            for each in (serving, moving):
                if each.instance_id in arm.instance_ids:
                    each.arm = arm.arm
        return admin_pb2.GetPlanResponse(
            policy="emp",
            version=7,
            instances=[serving, moving],
            transitions_done=3,
            transitions_rolled_back=1,
            past=[
                admin_pb2.PastTransition(
                    number=4,
                    instance_id="pd-0",
                    before=assignment([3]),
                    after=assignment([2, 3]),
                    is_done=True,
                    took_s=0.25,
                    clearing_s=0.2,
                    num_resident=3,
                    num_moved=2,
                    size_bytes=5 << 20,
                    age_s=70,
                )
            ],
        )

    def GetSloReport(
        self, request: admin_pb2.GetSloReportRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetSloReportResponse:
        check_token(context)
        calls = admin_pb2.SloClass(
            tenant="acme",
            group=stage_control_pb2.MODALITY_GROUP_TEXT,
            priority="normal",
            good=3,
            late=1,
            slow=2,
            unserved=4,
        )
        window = admin_pb2.SloWindow(
            window_s=60,
            covered_s=30,
            classes=[calls],
            requests_finished=6,
            prompt_tokens=100,
            cached_tokens=25,
            instance_s=90,
            saved_s=7.5,
            saved_bytes=3 << 20,
        )
        windows = [window, admin_pb2.SloWindow(window_s=600, covered_s=600)]
        return admin_pb2.GetSloReportResponse(
            ttft_s=2, multimodal_ttft_s=2, tpot_s=0.1, price_per_hour=1.8, windows=windows, trial=self.trial
        )

    def StartShadow(
        self, request: admin_pb2.StartShadowRequest, context: grpc.ServicerContext
    ) -> admin_pb2.StartShadowResponse:
        check_token(context)
        self.orders.append(("shadow", request))
        return admin_pb2.StartShadowResponse()

    def StopShadow(
        self, request: admin_pb2.StopShadowRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ShadowReport:
        self.orders.append(("stop shadow", request))
        return self.GetShadow(admin_pb2.GetShadowRequest(), context)

    def GetShadow(
        self, request: admin_pb2.GetShadowRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ShadowReport:
        check_token(context)
        if not self.has_shadow:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "no policy set is in the shadow")
        return shadowed()

    def StartTrial(
        self, request: admin_pb2.StartTrialRequest, context: grpc.ServicerContext
    ) -> admin_pb2.StartTrialResponse:
        check_token(context)
        self.orders.append(("trial", request))
        return admin_pb2.StartTrialResponse(experiment=request.experiment or "new")

    def StopTrial(
        self, request: admin_pb2.StopTrialRequest, context: grpc.ServicerContext
    ) -> admin_pb2.TrialReport:
        self.orders.append(("stop trial", request))
        return self.GetTrial(admin_pb2.GetTrialRequest(), context)

    def GetTrial(
        self, request: admin_pb2.GetTrialRequest, context: grpc.ServicerContext
    ) -> admin_pb2.TrialReport:
        check_token(context)
        return tried()

    def Why(self, request: admin_pb2.WhyRequest, context: grpc.ServicerContext) -> admin_pb2.WhyResponse:
        check_token(context)
        weighed = {"score": 0.5, "score_before": 2.0}
        decisions = [
            admin_pb2.Decision(
                age_s=12.25, piece="search", subject="cluster", choice="splits", numbers=weighed
            ),
            admin_pb2.Decision(age_s=12.25, piece="search", subject="p-0", choice="to p", numbers=weighed),
            admin_pb2.Decision(
                age_s=1.5, piece="dispatch", subject="r", choice="goes to p-0", numbers={"waited_s": 0.25}
            ),
        ]
        found = [each for each in decisions if request.subject in ("", each.subject)]
        for each in found if request.of_shadow else []:
            each.is_shadow = True
        if request.without_dispatches:
            found = [each for each in found if each.piece != "dispatch"]
        return admin_pb2.WhyResponse(decisions=found)

    def Pin(self, request: admin_pb2.PinRequest, context: grpc.ServicerContext) -> admin_pb2.PinResponse:
        self._note_order("pin", request, context)
        return admin_pb2.PinResponse()

    def Unpin(
        self, request: admin_pb2.UnpinRequest, context: grpc.ServicerContext
    ) -> admin_pb2.UnpinResponse:
        self._note_order("unpin", request, context)
        return admin_pb2.UnpinResponse()

    def Drain(
        self, request: admin_pb2.DrainRequest, context: grpc.ServicerContext
    ) -> admin_pb2.DrainResponse:
        self._note_order("drain", request, context)
        if request.instance_id in self.never_empty:
            refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return admin_pb2.DrainResponse()

    def Resume(
        self, request: admin_pb2.ResumeRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ResumeResponse:
        self._note_order("resume", request, context)
        return admin_pb2.ResumeResponse()

    def _note_order(self, verb: str, request: Any, context: grpc.ServicerContext) -> None:
        check_token(context)
        if request.instance_id == "last":
            refuse(
                context, grpc.StatusCode.FAILED_PRECONDITION, "nobody would play prefill for text requests"
            )
        self.orders.append((verb, request))

    def GetCache(
        self, request: admin_pb2.GetCacheRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetCacheResponse:
        check_token(context)
        instances = [
            admin_pb2.InstanceCaches(instance_id=name, caches=caches)
            for name, caches in (("pd-0", [kv_cache()]), ("e-0", []))
        ]
        return admin_pb2.GetCacheResponse(instances=instances, index_keys=1000, index_bytes=3 << 20)

    def FlushCache(
        self, request: admin_pb2.FlushCacheRequest, context: grpc.ServicerContext
    ) -> admin_pb2.FlushCacheResponse:
        check_token(context)
        if request.instance_id == "no":
            refuse(context, grpc.StatusCode.NOT_FOUND, "is not attached", field="instance_id")
        self.orders.append(("flush", request))
        return admin_pb2.FlushCacheResponse(instance_ids=[request.instance_id or "pd-0", "e-0"])

    def ExplainCache(
        self, request: admin_pb2.ExplainCacheRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ExplainCacheResponse:
        check_token(context)
        if request.request_id != "r":
            refuse(context, grpc.StatusCode.NOT_FOUND, "is not remembered", field="request_id")
        return admin_pb2.ExplainCacheResponse(
            request_id="r",
            tenant="t",
            scope=pb.CACHE_SCOPE_TENANT,
            prompt_tokens=100,
            cached_tokens=16,
            known_tokens=96,
            known_instance_id="p-0",
            prefill_instance_id="p-1",
            media=[
                admin_pb2.MediaExplanation(
                    field="messages[0].parts[0].image",
                    was_cached=True,
                    known_instance_ids=["e-0", "e-1"],
                    encode_instance_id="e-0",
                ),
                admin_pb2.MediaExplanation(field="messages[0].parts[1].image", encode_instance_id="e-1"),
            ],
            reasons=["the 96 tokens on p-0 were not used"],
        )

    def GetRecent(
        self, request: admin_pb2.GetRecentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetRecentResponse:
        check_token(context)
        known = [traced("req-1"), traced("req-2", is_running=True)]
        found = [each for each in known if request.request_id in ("", each.request_id)]
        if not found:
            refuse(context, grpc.StatusCode.NOT_FOUND, "is not among them", field="request_id")
        found = found[-request.limit :] if request.limit else found
        return admin_pb2.GetRecentResponse(
            requests=found, slo_ttft_s=2, slo_tpot_s=0.01, slo_multimodal_ttft_s=2
        )

    def Shutdown(
        self, request: admin_pb2.ShutdownRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ShutdownResponse:
        check_token(context)
        self.is_shut_down = True
        return admin_pb2.ShutdownResponse()


def check_token(context: grpc.ServicerContext) -> None:
    if not has_token(context.invocation_metadata(), TOKEN):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the cluster token is missing or wrong")
