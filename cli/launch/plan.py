"""What `up` is about to start, decided before anything runs."""

from __future__ import annotations

import dataclasses
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.cores import assign_cores
from cli.limits import Limits
from cli.targets import parse_slo
from coordinator.config import CoordinatorConfig
from coordinator.policy.trials.shares import parse_wish
from coordinator.tenants.settings import load_tenants
from core.families import ModelError, check_model
from core.profile_file import load_profile
from core.stages import Roles, roles_name
from core.topology import Topology, parse_topology
from stage_servers.cache.settings import DEFAULT_POLICY
from stage_servers.config import TLS_FILES, StageConfig, emulated_profile

_FILES = (*TLS_FILES, "tenants", "audit_log")


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One cluster on this host. Checked when built; ValueError names the field."""

    cluster: str  # unique among the clusters of this host
    model: Path
    topology: str = "auto"
    num_instances: int | None = None
    model_name: str = ""  # as clients see it; empty: the folder's name
    host: str = "127.0.0.1"
    port: int = 0  # of the coordinator; 0 takes a free one
    http_port: int | None = None  # of its HTTP door; 0 takes a free one, None: it stays closed
    advertise: str | None = None
    devices: tuple[str, ...] = ("cpu",)  # handed out in turn
    cores: tuple[int, ...] = (0,)  # shared out among instances on the CPU
    threads: int | None = None
    dtype: str = "auto"
    attention: str = "auto"
    transport: str = "auto"
    checksums: bool = False
    kv_blocks: int | None = None
    embedding_blocks: int | None = None
    chunk_tokens: int | None = None
    prompt_order: str = "text-first"
    encode_order: str = "shortest"
    encoding: str = "pipelined"
    prefix_cache: bool = True  # of all stage servers, as the next three; see StageConfig
    cache_policy: str = DEFAULT_POLICY
    cache_host_mib: int | None = None
    cache_ttl_s: float | None = None
    time_scale: float | None = None  # of emulated devices
    restarts: int = 3  # of a stage server that died, within ten minutes
    policy: str | None = None  # of the coordinator, as the next two; None: its default
    profile: str | None = None  # None: see `cost_profile`
    slo: str | None = None
    without: tuple[str, ...] = ()
    cache_aware: bool = True
    shadow: str | None = None
    ab: str | None = None
    allow_private_urls: bool = False
    metrics_port: int | None = None  # of the coordinator, for Prometheus; as http_port
    log_level: str = "INFO"
    log_format: str = "text"  # of all processes
    otlp_endpoint: str = ""  # of the coordinator's traces
    tls_cert: Path | None = None  # of all processes; see StageConfig
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_name: str | None = None
    tls_client_cert: bool = True
    reflection: bool = True
    dashboard: bool = True  # of the HTTP door
    tenants: Path | None = None  # of the coordinator, as the next
    audit_log: Path | None = None
    allow_hosts: tuple[str, ...] = ()  # of its HTTP door
    limits: Limits = field(default_factory=Limits)  # of all its doors
    heartbeat_timeout: float | None = None  # s, of stage servers; None: the coordinator's default

    def __post_init__(self) -> None:
        if self.slo is not None:
            parse_slo(self.slo)
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is not between 0 and 65535")
        try:
            check_model(self.model)
        except ModelError as error:
            raise ValueError(f"model: {error}") from None
        self._check_coordinator()
        self.stage_configs("checked:0", "checked")
        load_tenants(self.tenants)
        for name in (*self._emulated_profiles, self.cost_profile):
            if name is not None:
                load_profile(name)

    def _check_coordinator(self) -> None:
        given = {
            "policy": self.policy,
            "shadow": self.shadow,
            "trial": None if self.ab is None else parse_wish(self.ab),
            "heartbeat_timeout_s": self.heartbeat_timeout,
            **self.limits.settings(),
        }
        settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        media = self.limits.media(allow_private_urls=self.allow_private_urls)
        CoordinatorConfig(
            self.model, "checked", allow_hosts=self.allow_hosts, without=self.without, media=media, **settings
        )

    @property
    def wanted(self) -> Topology:
        return parse_topology(self.topology, self.num_instances)

    @property
    def instance_ids(self) -> tuple[str, ...]:
        return name_instances(self.wanted.instances)

    @property
    def has_shared_cores(self) -> bool:
        """Whether instances outnumber the cores they compute on."""
        return "cpu" in self.devices and self.wanted.num_instances > len(self.cores)

    def stage_configs(self, coordinator: str, token: str) -> list[StageConfig]:
        """One per instance, in the topology's order."""
        roles = self.wanted.instances
        cores = assign_cores(self.cores, roles)
        devices = [self.devices[index % len(self.devices)] for index in range(len(roles))]
        return [
            StageConfig(
                model=self.model,
                coordinator=coordinator,
                token=token,
                cluster=self.cluster,
                instance_id=instance_id,
                roles=roles[index],
                host=self.host,
                advertise=self.advertise,
                device=devices[index],
                device_share=1 / devices.count(devices[index]) if devices[index].startswith("cuda") else 1.0,
                cores=cores[index],
                **self._stage_settings(),
            )
            for index, instance_id in enumerate(self.instance_ids)
        ]

    def _stage_settings(self) -> dict[str, Any]:
        """What all instances share; None leaves the stage server its default."""
        names = (
            "dtype",
            "attention",
            "transport",
            "checksums",
            "threads",
            "kv_blocks",
            "embedding_blocks",
            "chunk_tokens",
            "prompt_order",
            "encode_order",
            "encoding",
            "prefix_cache",
            "cache_policy",
            "cache_host_mib",
            "cache_ttl_s",
            "time_scale",
            "log_level",
            "log_format",
            *TLS_FILES,
            "tls_name",
            "reflection",
        )
        settings = {name: getattr(self, name) for name in names}
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def cost_profile(self) -> str | None:
        """What the policies reckon with: as given, else what emulated devices take their time from.

        None: the coordinator's default. Raises ValueError where devices differ and none is given.
        """
        found = self._emulated_profiles
        if self.profile is None and len(found) > 1:
            raise ValueError(f"profile: devices are emulated by {' and '.join(found)}, say which one counts")
        return self.profile or next(iter(found), None)

    @property
    def _emulated_profiles(self) -> tuple[str, ...]:
        """Each once, in order of the devices."""
        found = (emulated_profile(device) for device in self.devices)
        return tuple(dict.fromkeys(name for name in found if name is not None))

    @property
    def policy_words(self) -> list[str]:
        """The coordinator's options about policies."""
        given = {
            "--policy": self.policy,
            "--shadow": self.shadow,
            "--ab": self.ab,
            "--profile": self.cost_profile,
            "--slo": self.slo,
        }
        words = [word for option, value in given.items() if value is not None for word in (option, value)]
        words += [word for piece in self.without for word in ("--without", piece)]
        return words if self.cache_aware else [*words, "--no-cache-aware"]

    @property
    def watch_words(self) -> list[str]:
        """The coordinator's options about what operators watch."""
        words = ["--log-format", self.log_format]
        words += [] if self.metrics_port is None else ["--metrics-port", str(self.metrics_port)]
        return [*words, "--otlp-endpoint", self.otlp_endpoint] if self.otlp_endpoint else words

    @property
    def door_words(self) -> list[str]:
        """The coordinator's options about who may call and how, and about how long it waits."""
        given = {
            "--tenants": self.tenants,
            "--audit-log": self.audit_log,
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--tls-ca": self.tls_ca,
            "--tls-name": self.tls_name,
            "--heartbeat-timeout": self.heartbeat_timeout,
        }
        words = [
            word for option, value in given.items() if value is not None for word in (option, str(value))
        ]
        words += self.limits.words
        words += [word for name in self.allow_hosts for word in ("--allow-host", name)]
        words += [] if self.tls_client_cert else ["--no-tls-client-cert"]
        words += [] if self.dashboard else ["--no-dashboard"]
        return words + ([] if self.reflection else ["--no-reflection"])

    @property
    def client_tls(self) -> dict[str, str] | None:
        """As commands find it written down: how to reach this cluster; None: in plain text."""
        files = {name.removeprefix("tls_"): getattr(self, name) for name in (*TLS_FILES, "tls_name")}
        given = {name: str(value) for name, value in files.items() if value is not None}
        return given or None

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        paths = {name: str(value) for name, value in values.items() if isinstance(value, Path)}
        return values | paths

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LaunchPlan:
        made = dict(values) | {"model": Path(values["model"])}
        for name in ("devices", "cores", "allow_hosts", "without"):
            made[name] = tuple(made[name])
        made["limits"] = Limits(**made["limits"])
        made |= {name: Path(made[name]) for name in _FILES if made[name] is not None}
        return cls(**made)


def new_cluster_id(name: str) -> str:
    """The cluster's name made unique, fit for file names."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in name)
    return f"{plain}_{secrets.token_hex(4)}"


def name_instances(instances: Sequence[Roles]) -> tuple[str, ...]:
    """ "e-0", "p-0", "d-0", "d-1": role letters and a number each."""
    seen: Counter[str] = Counter()
    names = []
    for roles in instances:
        letters = roles_name(roles)
        names.append(f"{letters}-{seen[letters]}")
        seen[letters] += 1
    return tuple(names)
