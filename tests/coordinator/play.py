"""A dispatcher whose instances do what a test says, in whatever order it likes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from coordinator.books import LiveBooks
from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.explanations import Explanations
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.dispatcher import Dispatcher
from coordinator.errors import CannotMigrateError, NotFoundError
from coordinator.fanout import RequestOutput
from coordinator.observer import CallEnd, RequestEnd
from coordinator.paces import Paces
from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.expectation import OutputExpectation
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.view import Placement
from coordinator.registry import Instance, Registry
from coordinator.request import PlacedMedia, Request
from coordinator.stage_messages import (
    CancelCommand,
    DecodeCommand,
    EncodeCommand,
    FailureReport,
    InstanceInfo,
    MediaItem,
    MigrateCommand,
    MigrationReport,
    NeedReport,
    PrefillCommand,
    Report,
    StageReport,
    StepReport,
    TokenRun,
)
from core.clock import ManualClock
from core.sampling import SamplingParams
from core.sequence import FinishReason, MediaSpan, SequenceSpec
from core.stages import ModalityGroup, Roles, Stage, parse_roles
from tests.quick_profile import make_profile

BLOCKS = 12


@dataclass
class Player:
    """One instance whose reports come when the test says so, in their order."""

    instance: Instance
    reports: deque[Report] = field(default_factory=deque)


class Hinted:
    """A scheduler whose placements are changed on their way."""

    def __init__(self, scheduler: Scheduler, change: Callable[[Placement], Placement]) -> None:
        self._scheduler = scheduler
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def place(self, books: Books, now_s: float) -> Placement | None:
        placement = self._scheduler.place(books, now_s)
        return None if placement is None else self._change(placement)


class Play:
    """A dispatcher, scripted instances, and every move that the world could make."""

    def __init__(self, policy: str = "fixed", hints: random.Random | None = None) -> None:
        """`hints` None: no placement counts on caches."""
        self.hints = hints
        self.clock = ManualClock()
        self.registry = Registry("model", heartbeat_timeout_s=1e9)
        costs = CostModel(make_profile())
        live = LiveBooks(self.clock, costs)
        self.dispatcher = Dispatcher(
            self.registry,
            live,
            Hinted(make_scheduler(policy, costs.profile, Slo(1.0, 1.0)), self._hinted),
            OutputExpectation(default_tokens=4),
            self.clock,
            warmth=RequestWarmth(ClusterCache(), EmbeddingsUnderWay(), live.books, self.clock),
            explanations=Explanations(),
            paces=Paces(costs.profile),
            report_grace_s=0.0,
            instance_wait_s=0.0,
            observer=self,
        )
        self.ends: list[RequestEnd] = []
        self.players: dict[str, Player] = {}
        self.requests: list[Request] = []
        self.num_started = 0
        self.num_moved = 0
        self.num_needed = 0
        self.num_recalled = 0
        self.specs: dict[tuple[str, int], SequenceSpec] = {}  # of sequences that may come to an instance

    def on_end(self, end: RequestEnd) -> None:
        self.ends.append(end)

    def on_unserved(self, call: CallEnd) -> None:
        raise AssertionError(f"there is no door: {call}")

    def join(self, roles: Roles) -> None:
        name = f"i{self.num_started}"
        self.num_started += 1
        info = InstanceInfo(
            name, 1, roles, ModalityGroup.SHARED, "", "", 1, "model", "f", "", "", 4, BLOCKS, BLOCKS
        )
        self.players[name] = Player(self.registry.attach(info, self.clock.now_s()))
        self.dispatcher.add_instance(self.players[name].instance)

    def submit(self, prompt_tokens: int, max_tokens: int, num_media: int) -> None:
        name = f"r{len(self.requests)}"
        item = MediaItem(b"", 1, 1, 1, "", "", "", "")
        spans = [MediaSpan(index, index, 1, (1, 1, 1), b"") for index in range(num_media)]
        request = Request(
            request_id=name,
            arrival_s=self.clock.now_s(),
            arrival_ns=0,
            prompt=(1,) * prompt_tokens,
            sampling=SamplingParams(max_tokens),
            stop_token_ids=frozenset(),
            output=RequestOutput(lambda ids: "x" * len(ids), (), frozenset()),
            reserve_tokens=min(4, max_tokens),
            media=tuple(PlacedMedia(item, span, "field") for span in spans),
        )
        self.requests.append(request)
        self.dispatcher.submit(request)

    def _hinted(self, placement: Placement) -> Placement:
        """As if some of its media, or of its tokens, were in caches."""
        if self.hints is None or self.hints.random() < 0.3:
            return placement
        request = self.requests[int(placement.request_id[1:])]
        num_skipped = self.hints.randint(0, len(request.media))
        held = range(num_skipped, self.hints.randint(num_skipped, len(request.media)))
        return replace(
            placement,
            encode=tuple(self.hints.choice(list(self.players)) for _ in request.media),
            held=frozenset(held),
            skipped=frozenset(range(num_skipped)),
            prefix=self.hints.choice([*self.players, "gone"]),
            prefix_tokens=num_skipped,
            saved_s=1e-6,
        )

    def lose(self, player: Player) -> None:
        del self.players[player.instance.instance_id]
        player.instance.end("lost")
        self.registry.detach(player.instance)
        self.dispatcher.lose_instance(player.instance, "lost")

    def obey(self, player: Player) -> None:
        """Turns all commands into the reports that they lead to."""
        while not player.instance.outbox.empty():
            match player.instance.outbox.get_nowait():
                case EncodeCommand() as work:
                    index = work.span.item_index
                    player.reports.append(_done(work.request_id, work.attempt, Stage.ENCODE, index))
                case PrefillCommand() as work:
                    is_whole = work.decode.instance_id == player.instance.instance_id
                    self._say_needs(player, work)
                    self._prefill(player, work.sequence, is_whole)
                case DecodeCommand() as work if work.prefill.instance_id in self.movers(work.sequence):
                    self.specs[work.sequence.key] = work.sequence
                case DecodeCommand() as work:
                    self._decode(player, work.sequence)
                    self._preempt(player, work.sequence)
                case MigrateCommand() as work:
                    self._move(player, work)
                case CancelCommand() as work:
                    key = (work.request_id, work.attempt)
                    self.specs.pop(key, None)
                    player.reports = deque(r for r in player.reports if _key(r) != key)

    def migrate(self, number: int, target: str | None) -> None:
        """Asks for a move, mostly of what decodes; it may be refused for a reason."""
        decoding = [request for request in self.requests if request.is_decoding]
        candidates = decoding if decoding and number % 5 else self.requests
        request = candidates[number % len(candidates)]
        try:
            self.dispatcher.migrate(request.request_id, target)
        except (CannotMigrateError, NotFoundError):
            return
        assert request.is_decoding

    def movers(self, sequence: SequenceSpec) -> set[str]:
        """Instances that are asked to move this sequence away."""
        (request,) = [each for each in self.requests if each.request_id == sequence.request_id]
        migration = request.migration
        is_this = migration is not None and migration.new_attempt == sequence.attempt
        return {migration.source} if migration is not None and is_this else set()

    def _move(self, player: Player, work: MigrateCommand) -> None:
        """What the source has not reported yet, but its next token, the target will make."""
        old, new = (work.request_id, work.attempt), (work.request_id, work.new_attempt)
        mine = [r for r in player.reports if _key(r) == old and isinstance(r, StepReport)]
        target = self.players.get(work.to.instance_id)
        if target is not None:
            self.obey(target)
        report = MigrationReport(*old, work.new_attempt, False, "trouble")
        if target is not None and new in self.specs and len(mine) > 1:
            self.num_moved += 1
            leaving = mine[1:]
            player.reports = deque(r for r in player.reports if r not in leaving)
            spec = self.specs.pop(new)
            for each in leaving:
                target.reports.append(_token(spec, each.runs[0].first_index))
            self._preempt(target, spec)
            report = MigrationReport(*old, work.new_attempt, True)
        player.reports.append(report)

    def report(self, player: Player) -> None:
        self.obey(player)
        if player.reports:
            self._take(player, player.reports.popleft())

    def fail_next(self, player: Player, code: int) -> None:
        """The next thing reported turns out to be a failure."""
        self.obey(player)
        if player.reports:
            if isinstance(player.reports[0], MigrationReport | NeedReport):
                return
            request_id, attempt = _key(player.reports.popleft())
            failure = FailureReport(request_id, attempt, Stage.DECODE, 0, code, "trouble")
            self.dispatcher.take_failure(player.instance, failure)

    def _take(self, player: Player, report: Report) -> None:
        if isinstance(report, StepReport):
            self.dispatcher.take_step(player.instance, report)
        elif isinstance(report, MigrationReport):
            self.dispatcher.take_migration(player.instance, report)
        elif isinstance(report, NeedReport):
            self.dispatcher.take_need(player.instance, report)
            self.num_recalled += any(request.recalled for request in self.dispatcher.requests())
        else:
            self.dispatcher.take_stage(player.instance, report)

    def _say_needs(self, player: Player, work: PrefillCommand) -> None:
        """Some of the prefixes are not there."""
        sequence = work.sequence
        if self.hints is not None and work.prefix_tokens and self.hints.random() < 0.5:
            indices = tuple(span.item_index for span in sequence.media)
            player.reports.append(NeedReport(sequence.request_id, sequence.attempt, indices))
            self.num_needed += 1

    def _prefill(self, player: Player, sequence: SequenceSpec, is_whole: bool) -> None:
        first = len(sequence.outputs)
        player.reports.append(_done(sequence.request_id, sequence.attempt, Stage.PREFILL, 0))
        player.reports.append(_token(sequence, first))
        if is_whole:
            self._decode(player, sequence)
            self._preempt(player, sequence)

    def _decode(self, player: Player, sequence: SequenceSpec) -> None:
        for index in range(len(sequence.outputs) + 1, sequence.sampling.max_tokens):
            player.reports.append(_token(sequence, index))

    def _preempt(self, player: Player, sequence: SequenceSpec) -> None:
        """Some lose their blocks before their last token, and ask for what they were not sent."""
        if self.hints is None or not player.reports or self.hints.random() < 0.5:
            return
        indices = tuple(span.item_index for span in sequence.media)
        report = NeedReport(sequence.request_id, sequence.attempt, indices)
        player.reports.insert(len(player.reports) - 1, report)

    def check(self) -> None:
        self.dispatcher.check_integrity()
        for name, book in self.dispatcher.books.instances.items():
            assert book.load.kv_blocks <= self._most_promised(name)

    def _most_promised(self, instance_id: str) -> int:
        """The pool, plus by how much present answers outgrew what was expected of them."""
        grown = sum(
            max(0, request.num_outputs + 1 - request.reserve_tokens)
            for request in self.dispatcher.requests()
            if request.has_stage(Stage.DECODE, instance_id)
        )
        return BLOCKS + grown

    async def settle(self) -> None:
        """Lets everything that is under way come to its end."""
        for roles in ("epd", "epd"):
            self.join(parse_roles(roles))
        for _ in range(400):
            self.clock.advance(10.0)
            for player in list(self.players.values()):
                for _ in range(20):
                    self.report(player)
            self.dispatcher.expire()
            await asyncio.sleep(0)
            if not self.dispatcher.requests():
                return
        raise AssertionError(f"left: {[(r.request_id, r.state) for r in self.dispatcher.requests()]}")


def _key(report: Report) -> tuple[str, int]:
    if isinstance(report, StepReport):
        return report.runs[0].request_id, report.runs[0].attempt
    assert isinstance(report, StageReport | MigrationReport | NeedReport)
    return report.request_id, report.attempt


def _done(request_id: str, attempt: int, stage: Stage, item_index: int) -> StageReport:
    return StageReport(request_id, attempt, stage, item_index, 0, 0)


def _token(sequence: SequenceSpec, index: int) -> StepReport:
    finish = FinishReason.LENGTH if index + 1 == sequence.sampling.max_tokens else None
    run = TokenRun(sequence.request_id, sequence.attempt, index, (1000 + index,), finish=finish)
    return StepReport((run,))
