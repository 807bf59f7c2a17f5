"""A coordinator on the test's own loop, fake stages around it, and a client's view of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from coordinator.config import CoordinatorConfig, MediaLimits
from coordinator.media.gateway import ServingGateway, serving
from coordinator.server import Coordinator
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc
from tests.coordinator.fake_stage import FakeStage, World

TOKEN = "a token for tests"
CHECKPOINT = Path("models/demo/checkpoint")


@dataclass
class Answer:
    """All that one Generate call said."""

    accepted: pb.Accepted | None = None
    tokens: list[pb.Tokens] = field(default_factory=list)
    finished: pb.Finished | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.tokens)

    @property
    def token_ids(self) -> list[int]:
        """Checks on the way that each index came exactly once, in order."""
        ids: list[int] = []
        for event in self.tokens:
            assert event.first_index == len(ids)
            ids += event.token_ids
        return ids


@dataclass
class Failure:
    """What a refused call said."""

    code: grpc.StatusCode
    message: str
    field: str | None
    retry_after_s: float | None
    quota: str | None = None


class Bench:
    """One coordinator, its fake stages, and a channel to it."""

    def __init__(self, coordinator: Coordinator, stack: AsyncExitStack) -> None:
        self.coordinator = coordinator
        self.world = World()
        self.stages: list[FakeStage] = []
        self.gateway: ServingGateway | None = None
        self.http_url = self.metrics_url = ""
        self._stack = stack
        self.address = f"127.0.0.1:{coordinator.port}"
        self.channel = grpc.aio.insecure_channel(self.address)
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)

    async def add(self, *roles: str, **settings: object) -> list[FakeStage]:
        fingerprint = self.coordinator.model.family.fingerprint
        added = []
        for each in roles:
            stage = FakeStage(self.world, self.address, TOKEN, each, fingerprint=fingerprint, **settings)
            added.append(await self._stack.enter_async_context(stage))
        self.stages += added
        return added

    async def ask(self, request: pb.GenerateRequest | None = None, **fields: object) -> Answer:
        answer = Answer()
        async for event in self.inference.Generate(request or ask_for(**fields)):
            match event.WhichOneof("event"):
                case "accepted":
                    answer.accepted = event.accepted
                case "tokens":
                    answer.tokens.append(event.tokens)
                case "finished":
                    answer.finished = event.finished
        return answer

    async def fail(self, request: pb.GenerateRequest | None = None, **fields: object) -> Failure:
        """The status of a call that must not succeed."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(request, **fields)
        return failure_of(caught.value)

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    @property
    def num_requests(self) -> int:
        return self.coordinator.dispatcher.num_waiting + self.coordinator.dispatcher.num_running

    async def assert_idle(self) -> None:
        """Nothing is held anywhere, and a good request still works."""
        await self.until(lambda: not self.num_requests and not any(stage.jobs for stage in self.stages))
        self.coordinator.dispatcher.check_integrity()
        if self.coordinator.cluster.is_ready:
            answer = await self.ask(text="still there?", max_tokens=3, seed=1)
            assert len(answer.token_ids) == 3
        await self.until(lambda: not self.coordinator.door.num_open)


async def until(condition: Callable[[], object]) -> None:
    """Returns once it holds; raises TimeoutError where it never does."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    failure = Failure(error.code(), error.details() or "", None, None)
    if packed is None:
        return failure
    status = status_pb2.Status.FromString(packed)
    assert status.code == error.code().value[0]
    for detail in status.details:
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad_request):
            failure.field = bad_request.field_violations[0].field
        quota = error_details_pb2.QuotaFailure()
        if detail.Unpack(quota):
            failure.quota = quota.violations[0].subject
        if detail.Unpack(retry):
            failure.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return failure


def ask_for(
    *,
    text: str | None = "hello",
    images: tuple[pb.ImagePart, ...] = (),
    stop: pb.StopConditions | None = None,
    request_id: str = "",
    model: str = "",
    deadline_s: float | None = None,
    tenant: str = "",
    cache_scope: pb.CacheScope.ValueType = pb.CACHE_SCOPE_UNSPECIFIED,
    cache_salt: str = "",
    **sampling: float,
) -> pb.GenerateRequest:
    parts = [pb.Part(image=image) for image in images]
    if text is not None:
        parts.append(pb.Part(text=text))
    request = pb.GenerateRequest(
        request_id=request_id,
        model=model,
        messages=[pb.Message(role="user", parts=parts)],
        sampling=pb.SamplingParams(**sampling),
        stop=stop,
        tenant=tenant,
        cache_scope=cache_scope,
        cache_salt=cache_salt,
    )
    if deadline_s is not None:
        request.deadline.FromNanoseconds(round(deadline_s * 1e9))
    return request


def picture(kind: str = "PNG", size: tuple[int, int] = (112, 84), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize(size).save(buffer, kind, **options)
    return buffer.getvalue()


MakeBench = Callable[..., object]


@pytest.fixture
async def make_bench() -> AsyncIterator[MakeBench]:
    """`await make_bench("e", "p", "d", setting=…)`: a coordinator with such fake stages."""
    async with AsyncExitStack() as stack:

        async def make(
            *roles: str, gateway: bool = False, media: MediaLimits | None = None, **settings: object
        ) -> Bench:
            config = CoordinatorConfig(
                model_path=CHECKPOINT,
                cluster_token=TOKEN,
                start_gateway=False,
                shutdown_grace_s=0.05,
                media=media or MediaLimits(),
                **settings,
            )
            coordinator = Coordinator(config)
            ready = await coordinator.start()
            stack.push_async_callback(coordinator.stop)
            bench = Bench(coordinator, stack)
            bench.http_url, bench.metrics_url = ready.http_url, ready.metrics_url
            if gateway:
                bench.gateway = await stack.enter_async_context(serving(coordinator.gateway_settings()))
                coordinator.note_gateway(bench.gateway.port)
            stack.push_async_callback(bench.channel.close)
            await bench.add(*roles)
            return bench

        yield make


@pytest.fixture
async def bench(make_bench: MakeBench) -> Bench:
    """Fully disaggregated, text only."""
    return await make_bench("e", "p", "d")
