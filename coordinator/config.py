"""The one frozen configuration of a coordinator process."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.access.hosts import check_host_names
from coordinator.listening.crowd import DEFAULT_MOST
from coordinator.policy.pieces import pieces_without
from coordinator.policy.reconciler import DEADLINE_S
from coordinator.policy.scheduler import LATE_WAIT_S
from coordinator.policy.sets import POLICY_SETS
from coordinator.policy.trials.shares import TrialWish
from core.log_lines import check_log_format
from core.tls import TlsFiles
from core.topology import Topology, parse_topology

_ANY_HOST = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What the media gateway takes in, and how long it keeps it."""

    media_bytes: int = 20 * 2**20  # of one item
    media_pixels: int = 40_000_000  # of one item, width times height
    store_bytes: int = 2 * 2**30  # of all items together
    media_ttl_s: float = 600.0  # from an item's last use
    url_timeout_s: float = 10.0  # of one fetch, redirects included
    url_redirects: int = 3
    allow_private_urls: bool = False

    def __post_init__(self) -> None:
        _check_positive(self, "media_bytes", "media_pixels", "store_bytes", "media_ttl_s", "url_timeout_s")


@dataclass(frozen=True, slots=True)
class ResumeLimits:
    """What is kept of answers that a client may go on reading."""

    ttl_s: float = 300.0  # longest that one may ask for; 0: no request is resumable
    tokens: int = 16384  # newest ones of an answer that stay
    answers: int = 1024  # ended ones that nobody reads; the oldest go first
    total_tokens: int = 262_144  # of those together

    def __post_init__(self) -> None:
        if self.ttl_s < 0:
            raise ValueError(f"ttl_s: must not be below 0, it is {self.ttl_s:g}")
        _check_positive(self, "tokens", "answers", "total_tokens")


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Built whole at start, checked here, passed down, never written to.

    Raises ValueError naming the setting that is out of range.
    """

    model_path: Path
    cluster_token: str = field(repr=False)
    model_name: str = ""  # empty: the model folder's name
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    advertise_host: str = ""  # name others reach us by; empty: host, or this machine's name where host is any
    topology: str | None = None  # wanted instances; None: whoever registers
    num_instances: int | None = None  # for topology names that leave the number open
    policy: str = "fixed"  # name of a policy set
    shadow: str = ""  # one that decides without acting; empty: none
    trial: TrialWish | None = None  # one that acts on a share of the instances; None: none
    profile: str = ""  # of costs: a shipped one or a file; empty: the demo model's on a CPU core
    slo_ttft_s: float = 2.0
    slo_tpot_s: float = 0.1
    slo_multimodal_ttft_s: float | None = None  # of requests with media; None: the same as slo_ttft_s
    late_wait_s: float = LATE_WAIT_S  # for so long those yield who are late in any case (emp)
    without: tuple[str, ...] = ()  # pieces of emp that are switched off
    cache_aware: bool = True  # dispatch weighs what instances' caches hold
    transition_deadline_s: float = DEADLINE_S
    max_waiting: int = 256  # requests accepted and not dispatched
    message_bytes: int = 32 * 2**20
    media_per_request: int = 16
    default_output_tokens: int = 256  # reserved for an answer until lengths are known
    heartbeat_interval_s: float = 1.0
    heartbeat_timeout_s: float = 10.0
    instance_wait_s: float = 30.0  # a request waits this long for a stage nobody plays
    report_grace_s: float = 0.25  # Finished waits this long for late stage reports
    stalled_reader_s: float = 60.0  # a client that reads nothing for so long is dropped
    shutdown_grace_s: float = 2.0
    start_gateway: bool = True
    media: MediaLimits = field(default_factory=MediaLimits)
    tenants: Path | None = None  # file of their settings, see coordinator.tenants; None: nobody is named
    audit_log: Path | None = None  # file; None: among all other lines of the log
    tls: TlsFiles | None = None  # of all listeners and connections; None: plain text
    tls_client_cert: bool = True  # whether who connects must have a certificate of the CA
    reflection: bool = True  # whether listeners describe their services
    dashboard: bool = True  # whether the HTTP door has its page, too
    http_port: int | None = None  # of the OpenAI-compatible door; 0: any free one, None: closed
    resume: ResumeLimits = field(default_factory=ResumeLimits)
    log_format: str = "text"  # of the gateway's process too; see core.log_lines
    metrics_port: int | None = None  # of the listener of /metrics; 0: any, None: there is none
    otlp_endpoint: str = ""  # URL that traces go to; empty: there are none
    max_connections: int = DEFAULT_MOST  # of each listener, the media gateway's as well
    max_calls: int = DEFAULT_MOST  # gRPC calls of clients under way
    allow_hosts: tuple[str, ...] = ()  # further names of HTTP door and metrics; see HostNames

    def __post_init__(self) -> None:
        if not self.cluster_token:
            raise ValueError("cluster_token: is empty")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is not between 0 and 65535")
        if not 0 <= (self.http_port or 0) <= 65535:
            raise ValueError(f"http_port: {self.http_port} is not between 0 and 65535")
        if not 0 <= (self.metrics_port or 0) <= 65535:
            raise ValueError(f"metrics_port: {self.metrics_port} is not between 0 and 65535")
        if self.heartbeat_timeout_s <= self.heartbeat_interval_s:
            raise ValueError(
                f"heartbeat_timeout_s: {self.heartbeat_timeout_s:g} is not longer than "
                f"heartbeat_interval_s, {self.heartbeat_interval_s:g}"
            )
        _check_positive(
            self,
            "max_waiting",
            "message_bytes",
            "slo_ttft_s",
            "slo_tpot_s",
            "late_wait_s",
            "transition_deadline_s",
            "heartbeat_interval_s",
            "stalled_reader_s",
            "max_connections",
            "max_calls",
        )
        if self.slo_multimodal_ttft_s is not None:
            _check_positive(self, "slo_multimodal_ttft_s")
        check_log_format(self.log_format)
        check_host_names("allow_hosts", self.allow_hosts)
        _check_policies(self.policy, self.shadow, self.trial)
        _check_pieces(self.policy, self.without)
        _ = self.wanted

    @property
    def wanted(self) -> Topology | None:
        return parse_topology(self.topology, self.num_instances) if self.topology else None

    @property
    def served_name(self) -> str:
        return self.model_name or self.model_path.resolve().name

    @property
    def public_host(self) -> str:
        if self.advertise_host or self.host not in _ANY_HOST:
            return self.advertise_host or self.host
        return socket.gethostname()


def _check_policies(policy: str, shadow: str, trial: TrialWish | None) -> None:
    named = {"policy": policy, "shadow": shadow, "ab": trial.policy if trial is not None else None}
    for setting, name in named.items():
        if name and name not in POLICY_SETS:
            raise ValueError(f"{setting}: {name!r} is not one of {', '.join(POLICY_SETS)}")
    if shadow and trial is not None:
        raise ValueError("ab, shadow: there is one at a time")


def _check_pieces(policy: str, without: tuple[str, ...]) -> None:
    try:
        pieces_without(without)
    except ValueError as error:
        raise ValueError(f"without: {error}") from None
    if without and policy != "emp":
        raise ValueError(f"without: {policy} has no pieces that could be switched off, emp has")


def _check_positive(record: object, *names: str) -> None:
    for name in names:
        if getattr(record, name) <= 0:
            raise ValueError(f"{name}: must be above 0, not {getattr(record, name)}")
