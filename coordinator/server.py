"""One coordinator: all its parts built and joined, started, and taken down in order."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from coordinator.access.guard import Guard
from coordinator.admission import Admission
from coordinator.audit import AuditLog
from coordinator.books import LiveBooks
from coordinator.cache.admin import CacheAdmin
from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.explanations import Explanations
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.checks.call import DoorLimits
from coordinator.clearing import Clearing
from coordinator.cluster import Cluster
from coordinator.config import CoordinatorConfig
from coordinator.dashboard.snapshot import Snapshots
from coordinator.dashboard.timeline import Timeline
from coordinator.decision_log import LoggedRing
from coordinator.dispatcher import Dispatcher
from coordinator.door import Door
from coordinator.errors import UnavailableError
from coordinator.formats import Formats
from coordinator.listening.health import HealthBoard
from coordinator.listening.listeners import (
    ADMIN,
    INFERENCE,
    MEDIA,
    OPEN_INFERENCE,
    STAGE_CONTROL,
    make_server,
    open_http,
    open_metrics,
)
from coordinator.listening.options import bind, endpoint
from coordinator.media.client import GatewayClient
from coordinator.media.process import GatewayProcess
from coordinator.media.settings import GatewaySettings
from coordinator.metrics.arms import ArmCollector
from coordinator.metrics.caches import CacheCollector
from coordinator.metrics.cluster import ClusterCollector
from coordinator.metrics.instances import InstanceCollector
from coordinator.metrics.transfers import TransferCollector
from coordinator.model import ServedModel, load_model
from coordinator.openai.listener import HttpListener
from coordinator.paces import Paces
from coordinator.planner import Planner
from coordinator.policy.cost_model import CostModel
from coordinator.policy.expectation import OutputExpectation
from coordinator.policy.reconciler import Reconciler
from coordinator.policy.scheduler import Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.trials.lineup import Lineup
from coordinator.prompt.builder import load_builder
from coordinator.registry import Registry
from coordinator.resuming.answers import Answers
from coordinator.state import CoordinatorState, ServedDescription
from coordinator.tenants.settings import Tenants
from coordinator.tenants.tenancy import Tenancy
from coordinator.trials import make_trials
from coordinator.watch import Watch, make_traces
from core.clock import MonotonicClock
from core.grammars import Grammars
from core.profile_file import load_profile
from core.version import version

log = logging.getLogger(__name__)


# Messages over the limit by less than this get a status that names the field; gRPC cuts off the rest.
_MESSAGE_SLACK_BYTES = 4 << 20
_RESOLVE_SLACK_S = 5.0
DEFAULT_PROFILE = "cpu-demo"


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a coordinator serves; given to `on_ready`."""

    port: int
    endpoint: str
    media_endpoint: str
    http_url: str = ""  # empty: there is no HTTP door
    metrics_url: str = ""  # empty: metrics have no listener of their own


class Coordinator:
    """All parts of one coordinator, wired. Built inside a running event loop."""

    def __init__(self, config: CoordinatorConfig) -> None:
        """Raises ValueError naming what the model folder lacks."""
        self.config = config
        self.clock = MonotonicClock()
        self.model: ServedModel = load_model(config.model_path, config.served_name)
        self.health = HealthBoard()
        self.stopping = asyncio.Event()
        self._started_s = self.clock.now_s()
        self._version = version()
        self.media_port: int | None = None
        self.registry = Registry(self.model.family.fingerprint, config.heartbeat_timeout_s)
        if not config.profile and config.policy != "fixed":
            log.warning("no profile was named: %s reckons with %s", config.policy, DEFAULT_PROFILE)
        self.costs = CostModel(load_profile(config.profile or DEFAULT_PROFILE))
        self.live = LiveBooks(self.clock, self.costs)
        self.cache = ClusterCache()
        self.warmth = RequestWarmth(self.cache, EmbeddingsUnderWay(), self.live.books, self.clock)
        self.explanations = Explanations()
        self.slo = Slo(config.slo_ttft_s, config.slo_tpot_s, config.slo_multimodal_ttft_s, config.late_wait_s)
        self.watch = Watch(
            self.slo,
            self.clock,
            named_tenants=lambda: self.tenancy.tenants.named,
            price_per_hour=self.costs.profile.price_per_hour,
            traces=make_traces(config.otlp_endpoint, self.model.name),
        )
        self.scheduler = Lineup(
            make_scheduler(
                config.policy,
                self.costs.profile,
                self.slo,
                model=self.costs,
                without=config.without,
                warmth=self.warmth if config.cache_aware else None,
                decisions=LoggedRing(),
            )
        )
        self.trials = make_trials(self)
        self.paces = Paces(self.costs.profile)
        self.dispatcher = self._make_dispatcher()
        self.planner = self._make_planner()
        self.cluster = self._make_cluster()
        self.audit = AuditLog(config.audit_log)
        self.tenancy = Tenancy(config.tenants, self.audit, self.cluster.set_cache_shares, self.use_tenants)
        self.guard = Guard(config.cluster_token, self.tenancy.tenants.keyring, self.audit, self.clock)
        self.media = GatewayClient(
            config.cluster_token,
            self.max_message_bytes,
            config.media.url_timeout_s + _RESOLVE_SLACK_S,
            config.tls,
        )
        self.gateway = GatewayProcess(self.gateway_settings(), self.note_gateway)
        self.answers = Answers(config.resume)
        self.cache_admin = CacheAdmin(self.registry, self.cache, self.explanations, self.planner, self.audit)
        self.timeline = Timeline(self.clock)
        self.snapshots = Snapshots(
            state=self.state,
            timeline=self.timeline,
            recent=self.dispatcher.recent,
            planner=self.planner,
            caches=self.cache_admin,
            trials=self.trials,
            slo=self.slo,
            clock=self.clock,
        )
        self.door = self._make_door()
        self._watch_all()
        self.server = make_server(self)
        self.port = 0
        self.http: HttpListener | None = None

    async def start(self) -> Ready:
        """Raises OSError if the address cannot be bound, RuntimeError if the gateway does not start."""
        for service in ("", STAGE_CONTROL, ADMIN):
            self.health.note(service, True)
        self._note_readiness(self.cluster.is_ready)
        self.health.note(MEDIA, False)
        self.port = bind(
            self.server,
            endpoint(self.config.host, self.config.port),
            self.config.tls,
            wants_client_cert=self.config.tls_client_cert,
        )
        if self.config.start_gateway:
            await self.gateway.start()
        metrics_url = await open_metrics(self)
        await self.server.start()
        self.http, http_url = open_http(self)
        self._watchers = [
            asyncio.create_task(self.cluster.watch_forever()),
            asyncio.create_task(self.planner.run_forever()),
            asyncio.create_task(self.watch.sample_forever(self.registry)),
        ]
        if self.http is not None and self.config.dashboard:
            self._watchers.append(asyncio.create_task(self.timeline.watch_forever(self.state)))
        log.info("coordinator: %s on %s:%d", self.model.name, self.config.host, self.port)
        return Ready(
            self.port,
            endpoint(self.config.public_host, self.port),
            self.media_endpoint,
            http_url,
            metrics_url,
        )

    async def stop(self) -> None:
        """Requests end with UNAVAILABLE, instances are told to stop, the gateway goes last."""
        self.door.close()
        self.health.leave()
        self.dispatcher.fail_all(UnavailableError("the cluster is shutting down"))
        await self.cluster.stop_instances(self.config.shutdown_grace_s)
        for watcher in self._watchers:
            watcher.cancel()
        if self.http is not None:
            await self.http.close()
        await self.watch.stop()
        await self.server.stop(self.config.shutdown_grace_s)
        await self.answers.close()
        await self.media.close()
        await self.gateway.stop()
        self.audit.close()
        log.info("coordinator: stopped")

    @property
    def media_endpoint(self) -> str:
        return "" if self.media_port is None else endpoint(self.config.public_host, self.media_port)

    def describe(self) -> ServedDescription:
        return ServedDescription(
            model=self.model.name,
            media_endpoint=self.media_endpoint,
            context_tokens=self.model.context_tokens,
            message_bytes=self.config.message_bytes,
            media_bytes=self.config.media.media_bytes,
            media_pixels=self.config.media.media_pixels,
            media_per_request=self.config.media_per_request,
            media_ttl_s=self.config.media.media_ttl_s,
            resume_ttl_s=self.config.resume.ttl_s,
            resume_tokens=self.config.resume.tokens,
        )

    def state(self) -> CoordinatorState:
        return CoordinatorState(
            model=self.model.name,
            version=self._version,
            uptime_s=self.clock.now_s() - self._started_s,
            num_waiting=self.door.num_waiting,
            num_running=self.dispatcher.num_running,
            num_finished=self.dispatcher.num_finished,
            num_failed=self.dispatcher.num_failed,
            instances=self.cluster.status(),
            topology=self.config.wanted.name if self.config.wanted else "any",
            num_missing=self.cluster.num_missing,
        )

    @property
    def max_message_bytes(self) -> int:
        """Of a message on the wire, the slack included."""
        return self.config.message_bytes + _MESSAGE_SLACK_BYTES

    def _note_readiness(self, is_ready: bool) -> None:
        for service in (INFERENCE, OPEN_INFERENCE):
            self.health.note(service, is_ready)

    def _make_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.registry,
            self.live,
            self.scheduler,
            OutputExpectation(self.config.default_output_tokens),
            self.clock,
            warmth=self.warmth,
            explanations=self.explanations,
            paces=self.paces,
            report_grace_s=self.config.report_grace_s,
            instance_wait_s=self.config.instance_wait_s,
            observer=self.watch.observer,
        )

    def _make_planner(self) -> Planner:
        books = self.live.books
        hands = Clearing(books, self.registry, self.dispatcher.migrate, self.costs)
        reconciler = Reconciler(
            books, hands, self.clock, deadline_s=self.config.transition_deadline_s, note=log.info
        )
        return Planner(self.config.policy, self.scheduler, books, reconciler, self.clock, paces=self.paces)

    def _make_cluster(self) -> Cluster:
        return Cluster(
            self.registry,
            self.dispatcher,
            self.planner,
            self.cache,
            self.clock,
            wanted=self.config.wanted,
            heartbeat_interval_s=self.config.heartbeat_interval_s,
            tpot_s=self.slo.tpot_s,
            on_readiness=self._note_readiness,
        )

    def _make_door(self) -> Door:
        family = self.model.family
        limits = DoorLimits(
            model_name=self.model.name,
            vocab_size=family.vocab_size,
            media_token_ids=family.media_token_ids,
            message_bytes=self.config.message_bytes,
            media_per_request=self.config.media_per_request,
            media_bytes=self.config.media.media_bytes,
            resume_ttl_s=self.config.resume.ttl_s,
        )
        return Door(
            model=self.model,
            prompts=load_builder(self.config.model_path),
            formats=Formats(Grammars(self.config.model_path, family.vocab_size, family.eos_token_ids)),
            media=self.media,
            cluster=self.cluster,
            dispatcher=self.dispatcher,
            admission=Admission(self.config.max_waiting),
            tenancy=self.tenancy,
            guard=self.guard,
            answers=self.answers,
            limits=limits,
            clock=self.clock,
            observer=self.watch.observer,
        )

    def _watch_all(self) -> None:
        self.watch.add(
            ClusterCollector(
                self.dispatcher,
                self.cluster,
                self.planner,
                self.scheduler.decisions,
                lambda: self.door.num_waiting,
            ),
            InstanceCollector(self.cluster.status),
            CacheCollector(self.registry, self.cache),
            TransferCollector(self.registry),
            ArmCollector(self.watch.arms.report),
        )

    def gateway_settings(self) -> GatewaySettings:
        return GatewaySettings(
            cluster_token=self.config.cluster_token,
            host=self.config.host,
            port=0,
            public_host=self.config.public_host,
            message_bytes=self.max_message_bytes,
            limits=self.config.media,
            keys=self.tenancy.tenants.keyring.keys,
            is_open=self.guard.is_open,
            shares=self.tenancy.tenants.cache_shares,
            tls=self.config.tls,
            tls_client_cert=self.config.tls_client_cert,
            reflection=self.config.reflection,
            max_connections=self.config.max_connections,
            audit_log=None if self.config.audit_log is None else str(self.config.audit_log.resolve()),
            log_format=self.config.log_format,
        )

    def use_tenants(self, tenants: Tenants) -> None:
        """Their keys and shares, from now on, at all doors."""
        self.guard.use(tenants.keyring)
        self.gateway.tell(self.gateway_settings())

    def note_gateway(self, port: int | None) -> None:
        self.media_port = port
        self.health.note(MEDIA, port is not None)
        if port is None:
            self.media.disconnect()
        else:
            self.media.connect(self.media_endpoint)
