"""elasticmm up: a whole cluster on this host, with one command."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import INTERRUPTED, USAGE, fail, print_json
from cli.limit_options import (
    LateWaitOption,
    MaxCallsOption,
    MaxConnectionsOption,
    MaxMediaMegapixelsOption,
    MaxMediaMibOption,
    MaxMediaOption,
    MaxMessageOption,
    MaxWaitingOption,
    MediaStoreOption,
    ResumeTtlOption,
    UrlTimeoutOption,
)
from cli.options import (
    AbOption,
    AdvertiseOption,
    AllowHostOption,
    AllowPrivateOption,
    AttentionOption,
    AuditLogOption,
    CacheAwareOption,
    CacheHostOption,
    CachePolicyOption,
    CacheTtlOption,
    ChecksumsOption,
    ChunkTokensOption,
    CoresOption,
    DashboardOption,
    DevicesOption,
    DtypeOption,
    EmbeddingBlocksOption,
    EncodeOrderOption,
    EncodingOption,
    HeartbeatTimeoutOption,
    HostOption,
    JsonOption,
    KvBlocksOption,
    LogFormatOption,
    LogLevelOption,
    MetricsPortOption,
    ModelNameOption,
    ModelOption,
    NameOption,
    OtlpEndpointOption,
    PolicyOption,
    PrefixCacheOption,
    ProfileOption,
    PromptOrderOption,
    ReflectionOption,
    ShadowOption,
    SloOption,
    StateDirOption,
    TenantsOption,
    ThreadsOption,
    TimeScaleOption,
    TlsCaOption,
    TlsCertOption,
    TlsClientCertOption,
    TlsKeyOption,
    TlsNameOption,
    TransportOption,
    WithoutOption,
)
from cli.settings_file import ConfigOption
from cli.state import DEFAULT_NAME, AlreadyUpError, StateDir, find_state_dir

if TYPE_CHECKING:
    from cli.launch.plan import LaunchPlan

_HTTP_PORT = 8000
_NOT_PLANNED = frozenset({"detach", "as_json", "state_dir", "config_file"})


def run(
    *,
    model: ModelOption = None,
    model_name: ModelNameOption = "",
    instances: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of stage servers.")
    ] = None,
    topology: Annotated[
        str,
        typer.Option(
            metavar="TOPOLOGY",
            help="auto, coupled, e1p1d1, e1p2d2, ep1d1, … : role letters and a count each.",
        ),
    ] = "auto",
    dtype: DtypeOption = "auto",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Of the coordinator; 0 takes a free one.")
    ] = 50051,
    http_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Of OpenAI's API. Default: 8000, or a free one where --port is 0.",
        ),
    ] = None,
    http: Annotated[bool, typer.Option("--http/--no-http", help="Serve OpenAI's API as well.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Leave the cluster running.")] = False,
    as_json: JsonOption = False,
    host: HostOption = "127.0.0.1",
    advertise: AdvertiseOption = None,
    device: DevicesOption = "auto",
    attention: AttentionOption = "auto",
    transport: TransportOption = "auto",
    checksums: ChecksumsOption = False,
    cores: CoresOption = None,
    threads: ThreadsOption = None,
    kv_blocks: KvBlocksOption = None,
    embedding_blocks: EmbeddingBlocksOption = None,
    chunk_tokens: ChunkTokensOption = None,
    prompt_order: PromptOrderOption = "text-first",
    encode_order: EncodeOrderOption = "shortest",
    encoding: EncodingOption = "pipelined",
    prefix_cache: PrefixCacheOption = True,
    cache_policy: CachePolicyOption = "seconds-saved",
    cache_host_mib: CacheHostOption = None,
    cache_ttl_s: CacheTtlOption = None,
    time_scale: TimeScaleOption = None,
    policy: PolicyOption = None,
    shadow: ShadowOption = None,
    ab: AbOption = None,
    profile: ProfileOption = None,
    slo: SloOption = None,
    without: WithoutOption = None,
    cache_aware: CacheAwareOption = True,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_ca: TlsCaOption = None,
    tls_name: TlsNameOption = None,
    tls_client_cert: TlsClientCertOption = True,
    reflection: ReflectionOption = True,
    dashboard: DashboardOption = True,
    tenants: TenantsOption = None,
    audit_log: AuditLogOption = None,
    allow_private_urls: AllowPrivateOption = False,
    allow_host: AllowHostOption = None,
    max_waiting: MaxWaitingOption = None,
    max_connections: MaxConnectionsOption = None,
    max_calls: MaxCallsOption = None,
    max_message_mib: MaxMessageOption = None,
    max_media: MaxMediaOption = None,
    max_media_mib: MaxMediaMibOption = None,
    max_media_megapixels: MaxMediaMegapixelsOption = None,
    media_store_mib: MediaStoreOption = None,
    url_timeout: UrlTimeoutOption = None,
    resume_ttl: ResumeTtlOption = None,
    late_wait: LateWaitOption = None,
    heartbeat_timeout: HeartbeatTimeoutOption = None,
    restarts: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="So often within ten minutes a stage server that died is started again.",
        ),
    ] = 3,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    metrics_port: MetricsPortOption = None,
    otlp_endpoint: OtlpEndpointOption = "",
    log_level: LogLevelOption = "INFO",
    log_format: LogFormatOption = "text",
    config_file: ConfigOption = None,
) -> None:
    """Starts a coordinator and stage servers here. Ctrl-C (or 'elasticmm down') ends them all."""
    plan = make_plan(**{option: value for option, value in locals().items() if option not in _NOT_PLANNED})
    _announce(plan)
    state = find_state_dir(state_dir, name)
    (_run_detached if detach else _run_here)(plan, state, as_json=as_json)


def make_plan(
    *,
    name: str,
    model: Path | None,
    model_name: str,
    instances: int | None,
    device: str,
    cores: str | None,
    log_level: str,
    port: int,
    http_port: int | None,
    http: bool,
    allow_host: list[str] | None = None,
    without: list[str] | None = None,
    **settings: Any,
) -> LaunchPlan:
    """From the command's options by name; exits 2 where one is wrong."""
    from cli.devices import choose_cores, choose_devices
    from cli.launch.plan import LaunchPlan, new_cluster_id
    from cli.limits import Limits
    from cli.model_folder import model_folder, served_name

    try:
        return LaunchPlan(
            cluster=new_cluster_id(name),
            model=model_folder(model),
            model_name=served_name(model, model_name),
            num_instances=instances,
            devices=choose_devices(device, instances),
            cores=choose_cores(cores),
            log_level=log_level.upper(),
            port=port,
            http_port=_choose_http_port(port, http_port) if http else None,
            allow_hosts=tuple(allow_host or ()),
            without=tuple(without or ()),
            limits=Limits.taken_from(settings),
            **settings,
        )
    except ValueError as error:
        fail(str(error), USAGE)


def _choose_http_port(port: int, http_port: int | None) -> int:
    if http_port is None:
        return _HTTP_PORT if port else 0
    return http_port


def _announce(plan: LaunchPlan) -> None:
    print(f"model {plan.model}, topology {plan.wanted.name}", file=sys.stderr)
    if plan.has_shared_cores:
        count = plan.wanted.num_instances
        print(f"{count} instances share {len(plan.cores)} cores: fewer cores than instances", file=sys.stderr)


def _run_here(plan: LaunchPlan, state: StateDir, *, as_json: bool) -> None:
    from cli.launch.events import LaunchError
    from cli.launch.progress import print_event, show_progress
    from cli.launch.supervisor import Supervisor

    try:
        state.acquire()
    except (AlreadyUpError, OSError) as error:
        fail(str(error))
    _end_on_signals()
    supervisor = Supervisor(plan, state)
    is_ready = False
    try:
        with show_progress(supervisor.parts) as report:
            cluster = supervisor.start(report)
        is_ready = True
        _print_ready(cluster.to_json(), as_json=as_json, has_dashboard=plan.dashboard)
        ending = supervisor.wait(print_event)
        if not ending.is_orderly:
            fail(ending.reason)
    except LaunchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("ending the cluster", file=sys.stderr)
        if not is_ready:
            raise typer.Exit(INTERRUPTED) from None
    finally:
        _ignore_signals()
        for line in supervisor.stop():
            print(line, file=sys.stderr)


def _run_detached(plan: LaunchPlan, state: StateDir, *, as_json: bool) -> None:
    from cli.launch.detached import start_detached
    from cli.launch.events import LaunchError

    try:
        cluster = start_detached(plan, state)
    except (LaunchError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted: what had started is ended", INTERRUPTED)
    _print_ready(cluster, as_json=as_json, has_dashboard=plan.dashboard)


def _print_ready(cluster: dict[str, Any], *, as_json: bool, has_dashboard: bool) -> None:
    if as_json:
        print_json(cluster)
        return
    print(f"ready at {cluster['address']}: {', '.join(each['id'] for each in cluster['instances'])}")
    if cluster["http"]:
        print(f"OpenAI's API at {cluster['http']}/v1")
        if has_dashboard:
            print(f"dashboard at {cluster['http']}/ (asks for the token or an admin's key)")
    if cluster["metrics"]:
        print(f"metrics at {cluster['metrics']}")
    print(f'ask: elasticmm generate "…"   token and logs: {cluster["state_dir"]}', flush=True)


def _end_on_signals() -> None:
    """A closed terminal and a polite kill end the cluster as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _ignore_signals() -> None:
    """The end is under way; a second Ctrl-C must not leave processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
