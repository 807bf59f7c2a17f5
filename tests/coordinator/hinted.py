"""A dispatcher whose placements the test says, and instances whose commands it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import grpc

from coordinator.books import LiveBooks
from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.explanations import Explanations
from coordinator.cache.request_keys import begin_keys
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.dispatcher import Dispatcher
from coordinator.events import FinishedEvent
from coordinator.fanout import RequestOutput
from coordinator.paces import Paces
from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.expectation import OutputExpectation
from coordinator.policy.fixed import FixedScheduler
from coordinator.policy.layouts import present_layout
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from coordinator.registry import Instance, Registry
from coordinator.request import PlacedMedia, Request
from coordinator.stage_messages import (
    Command,
    EncodeCommand,
    FailureReport,
    MediaItem,
    NeedReport,
    StageReport,
    StepReport,
    TokenRun,
)
from core.clock import ManualClock
from core.sampling import SamplingParams
from core.sequence import CacheUse, FinishReason, MediaSpan
from core.stages import Stage, parse_roles
from tests.coordinator.wire.test_stages import info
from tests.quick_profile import make_profile

USE = CacheUse(b"s" * 32, "tenant")
SPANS = tuple(
    MediaSpan(index, 20 * index + 8, 4, (1, 4, 4), b"d" * 32, bytes([index]) * 32) for index in range(2)
)
ITEM = MediaItem(b"d" * 32, 1, 28, 28, "image/png", "", "", "")
KEYS = begin_keys("ab", USE, SPANS)
PROMPT = tuple(range(100))

C = TypeVar("C", bound=Command)


class Script:
    """Places whatever waits first as it is told to."""

    def __init__(self, *placements: Placement) -> None:
        self.placements = list(placements)

    def place(self, books: Books, now_s: float) -> Placement | None:  # noqa: ARG002
        return self.placements.pop(0) if books.has_waiting and self.placements else None

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        pass


class Scene:
    """Encoders e0 and e1, prefill p0, decode d0, and h0, which plays all; one request with two pictures."""

    def __init__(self, *placements: Placement, request: Request | None = None) -> None:
        clock, costs = ManualClock(), CostModel(make_profile())
        live = LiveBooks(clock, costs)
        self.cache = ClusterCache()
        self.warmth = RequestWarmth(self.cache, EmbeddingsUnderWay(), live.books, clock)
        self.explanations = Explanations()
        self.registry = Registry("ab", heartbeat_timeout_s=1e9)
        self.script = Script(*placements)
        self.dispatcher = Dispatcher(
            self.registry,
            live,
            FixedScheduler(present_layout, self.script, DecisionRing(8), 1.0),
            OutputExpectation(default_tokens=4),
            clock,
            warmth=self.warmth,
            explanations=self.explanations,
            paces=Paces(costs.profile),
            report_grace_s=0.0,
            instance_wait_s=0.0,
        )
        for name, roles in {"e0": "e", "e1": "e", "p0": "p", "d0": "d", "h0": "epd"}.items():
            self._attach(name, roles)
        self.request = request or make_request()
        self.dispatcher.submit(self.request)

    def sent(self, name: str, kind: type[C]) -> list[C]:
        """The commands of this kind that it was sent since the last look; others are dropped."""
        outbox, commands = self.instance(name).outbox, []
        while not outbox.empty():
            commands.append(outbox.get_nowait())
        return [command for command in commands if isinstance(command, kind)]

    def instance(self, name: str) -> Instance:
        found = self.registry.get(name)
        assert found is not None
        return found

    def done(self, name: str, stage: Stage, item_index: int = 0, cached_tokens: int = 0) -> None:
        report = StageReport(
            "r", self.request.attempt, stage, item_index, 0, 0, "shm", cached_tokens=cached_tokens
        )
        self.dispatcher.take_stage(self.instance(name), report)

    def need(self, *item_indices: int, attempt: int | None = None, name: str = "p0") -> None:
        attempt = self.request.attempt if attempt is None else attempt
        self.dispatcher.take_need(self.instance(name), NeedReport("r", attempt, item_indices))

    def refused(self, name: str, item_index: int) -> None:
        """Its prefill instance had no such request any more."""
        code = grpc.StatusCode.NOT_FOUND.value[0]
        failure = FailureReport("r", self.request.attempt, Stage.ENCODE, item_index, code, "has ended here")
        self.dispatcher.take_failure(self.instance(name), failure)

    def token(self, name: str, *, is_last: bool = False) -> None:
        finish = FinishReason.LENGTH if is_last else None
        run = TokenRun("r", self.request.attempt, self.request.num_outputs, (7,), finish=finish)
        self.dispatcher.take_step(self.instance(name), StepReport((run,)))

    def lose(self, name: str) -> None:
        instance = self.instance(name)
        instance.end("lost")
        self.registry.detach(instance)
        self.cache.detach(name)
        self.dispatcher.lose_instance(instance, "lost")

    async def finish(self) -> FinishedEvent:
        """The rest of its tokens; nothing may be held then."""
        while not self.request.has_shown_token:
            self.token("p0")
        assert self.request.placement is not None
        self.token(self.request.placement.decode, is_last=True)
        while not isinstance(event := await self.request.output.stream.next(), FinishedEvent):
            assert event is not None
        self.check_idle()
        return event

    def check_idle(self) -> None:
        assert not self.dispatcher.requests()
        self.dispatcher.check_integrity()

    def _attach(self, name: str, roles: str) -> None:
        described = info(instance_id=name, epoch=1, roles=parse_roles(roles), endpoint=name)
        instance = self.registry.attach(described, 0.0)
        self.cache.attach(described)
        self.dispatcher.add_instance(instance)


def make_request() -> Request:
    return Request(
        request_id="r",
        arrival_s=0.0,
        arrival_ns=0,
        prompt=PROMPT,
        sampling=SamplingParams(20),
        stop_token_ids=frozenset(),
        output=RequestOutput(lambda ids: "x" * len(ids), (), frozenset()),
        reserve_tokens=4,
        media=tuple(PlacedMedia(ITEM, span, f"field {span.item_index}") for span in SPANS),
        tenant="tenant",
        cache=USE,
        keys=KEYS.extended(PROMPT, SPANS),
    )


def placed(**changes: object) -> Placement:
    return replace(Placement("r", ("e0", "e1"), "p0", "d0", 0.0), **changes)


HELD = placed(encode=("h0", "e1"), held=frozenset({0}))
SKIPPED = placed(skipped=frozenset({0, 1}), prefix="h0", prefix_tokens=48)
LOCAL = replace(SKIPPED, decode="p0")
HALF = placed(skipped=frozenset({0}), prefix="p0", prefix_tokens=16)


def encodes(scene: Scene, name: str, to: str = "p0", attempt: int | None = None) -> list[int]:
    """The items that it was told to encode for the present dispatch, or another, and to send there."""
    commands = scene.sent(name, EncodeCommand)
    attempt = scene.request.attempt if attempt is None else attempt
    assert {command.attempt for command in commands} <= {attempt}
    assert {(command.prefill.instance_id, command.cache) for command in commands} <= {(to, USE)}
    return [command.span.item_index for command in commands]


def started(scene: Scene, decode: str = "p0") -> None:
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    for name in ("p0", decode):
        scene.token(name)
