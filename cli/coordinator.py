"""elasticmm coordinator: the control plane alone, for clusters over several machines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import FAILED, USAGE
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
from cli.limits import Limits
from cli.options import (
    AbOption,
    AdvertiseOption,
    AllowHostOption,
    AllowPrivateOption,
    AuditLogOption,
    CacheAwareOption,
    DashboardOption,
    HeartbeatTimeoutOption,
    HostOption,
    HttpPortOption,
    JsonOption,
    LogFormatOption,
    LogLevelOption,
    MetricsPortOption,
    ModelNameOption,
    ModelOption,
    OtlpEndpointOption,
    PolicyOption,
    ProfileOption,
    ReflectionOption,
    ShadowOption,
    SloOption,
    TenantsOption,
    TlsCaOption,
    TlsCertOption,
    TlsClientCertOption,
    TlsKeyOption,
    TlsNameOption,
    WithoutOption,
)
from cli.settings_file import ConfigOption
from cli.state import DEFAULT_NAME, find_state_dir

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig
    from coordinator.server import Ready
    from core.tls import TlsFiles


_NOT_CONFIGURED = frozenset({"supervised", "config_file", "as_json", "log_level"})
_CONFIGURED_AS = {
    "advertise": "advertise_host",
    "instances": "num_instances",
    "heartbeat_timeout": "heartbeat_timeout_s",
}


def run(
    *,
    model: ModelOption = None,
    topology: Annotated[
        str | None,
        typer.Option(
            metavar="TOPOLOGY",
            help="Instances to expect: auto, coupled, e1p1d1, … Default: whoever registers.",
        ),
    ] = None,
    instances: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of stage servers to expect.")
    ] = None,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes a free one.")] = 50051,
    advertise: AdvertiseOption = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Cluster token; made and written there where there is none. "
            "Default: $ELASTICMM_TOKEN, or the default cluster's.",
        ),
    ] = None,
    model_name: ModelNameOption = "",
    policy: PolicyOption = None,
    shadow: ShadowOption = None,
    ab: AbOption = None,
    profile: ProfileOption = None,
    slo: SloOption = None,
    without: WithoutOption = None,
    cache_aware: CacheAwareOption = True,
    allow_private_urls: AllowPrivateOption = False,
    tenants: TenantsOption = None,
    audit_log: AuditLogOption = None,
    heartbeat_timeout: HeartbeatTimeoutOption = None,
    metrics_port: MetricsPortOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_ca: TlsCaOption = None,
    tls_name: TlsNameOption = None,
    tls_client_cert: TlsClientCertOption = True,
    reflection: ReflectionOption = True,
    dashboard: DashboardOption = True,
    http_port: HttpPortOption = None,
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
    otlp_endpoint: OtlpEndpointOption = "",
    log_level: LogLevelOption = "INFO",
    log_format: LogFormatOption = "text",
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Serves clients and directs stage servers, which attach with 'elasticmm stage'.

    With --json it prints where it serves as one object.
    """
    options = {name: value for name, value in locals().items() if name not in _NOT_CONFIGURED}
    from core.log_lines import start_log

    tell = _tell_supervisor if supervised else _tell_program if as_json else _tell_user
    if supervised:
        from stage_servers.forkserver import die_with_parent

        die_with_parent()
    try:
        start_log(log_level.upper(), log_format)
        config = make_config(**options)
    except ValueError as error:
        tell("failed", str(error))
        raise typer.Exit(USAGE) from error
    serve(config, tell)


def make_tls(cert: Path | None, key: Path | None, ca: Path | None, name: str | None) -> TlsFiles | None:
    """None where no option is given. Raises ValueError where some are missing or a file does not fit."""
    from core.tls import TlsFiles

    if cert is None or key is None or ca is None:
        if cert or key or ca or name:
            raise ValueError("tls_cert, tls_key, tls_ca: are needed together")
        return None
    return TlsFiles(cert, key, ca, name)


def make_config(
    *,
    model: Path | None,
    model_name: str,
    token_file: Path | None,
    allow_private_urls: bool,
    slo: str | None,
    ab: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_name: str | None,
    allow_host: list[str] | None,
    without: list[str] | None,
    **settings: Any,
) -> CoordinatorConfig:
    """From the command's options by name; None leaves a setting its default. Raises ValueError."""
    from cli.model_folder import model_folder, served_name
    from cli.targets import parse_slo
    from coordinator.config import CoordinatorConfig, ResumeLimits
    from coordinator.policy.trials.shares import parse_wish
    from coordinator.tenants.settings import load_tenants
    from core.families import check_model
    from core.profile_file import load_profile

    limits = Limits.taken_from(settings)
    settings = {
        _CONFIGURED_AS.get(name, name): value for name, value in settings.items() if value is not None
    }
    load_tenants(settings.get("tenants"))
    if settings.get("profile"):
        load_profile(settings["profile"])
    if slo is not None:
        names = ("slo_ttft_s", "slo_tpot_s", "slo_multimodal_ttft_s")
        settings |= zip(names, parse_slo(slo), strict=True)
    folder = model_folder(model)
    check_model(folder)
    return CoordinatorConfig(
        model_path=folder,
        cluster_token=read_or_make_token(token_file),
        model_name=served_name(model, model_name),
        trial=None if ab is None else parse_wish(ab),
        tls=make_tls(tls_cert, tls_key, tls_ca, tls_name),
        allow_hosts=tuple(allow_host or ()),
        without=tuple(without or ()),
        media=limits.media(allow_private_urls=allow_private_urls),
        resume=ResumeLimits() if limits.resume_ttl is None else ResumeLimits(ttl_s=limits.resume_ttl),
        **limits.settings(),
        **settings,
    )


def serve(config: CoordinatorConfig, tell: Any) -> None:
    """Until a signal or Admin.Shutdown; exits 1 with the reason if it cannot start."""
    from coordinator import process
    from core.open_files import allow_connections

    allow_connections(2 * config.max_connections)  # of gRPC, and of HTTP
    try:
        process.run(config, on_ready=partial(_tell_ready, tell))
    except (ValueError, OSError, RuntimeError) as error:
        tell("failed", str(error))
        raise typer.Exit(FAILED) from error


def _tell_ready(tell: Any, ready: Ready) -> None:
    tell("ready", ready.endpoint, ready.http_url, ready.metrics_url)


def read_or_make_token(token_file: Path | None) -> str:
    """The token given or of the default cluster; a new one is written there where none is.

    Raises ValueError if a given file can be neither read nor made.
    """
    from cli.endpoint import find_token
    from core.access import new_token

    state = find_state_dir(None, DEFAULT_NAME)
    is_to_be_made = token_file is not None and not token_file.exists()
    token = None if is_to_be_made else find_token(token_file, state)
    if token is None:
        token = new_token()
        _keep_token(token_file or state.token_path, token)
    return token


def _keep_token(path: Path, token: str) -> None:
    from core.access import write_token

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_token(path, token)
    except OSError as error:
        raise ValueError(f"token-file: cannot write {path}: {error.strerror}") from error
    typer.echo(f"cluster token written to {path}", err=True)


def _tell_user(event: str, message: str, http_url: str = "", metrics_url: str = "") -> None:
    if event == "failed":
        typer.echo(f"elasticmm: {message}", err=True)
        return
    http = f", OpenAI's API at {http_url}/v1" if http_url else ""
    metrics = f", metrics at {metrics_url}" if metrics_url else ""
    typer.echo(f"coordinator ready at {message}{http}{metrics}")


def _tell_program(event: str, message: str, http_url: str = "", metrics_url: str = "") -> None:
    from cli.exits import print_json

    if event == "failed":
        print_json({"error": {"message": message}})
        _tell_user(event, message)
        return
    print_json({"address": message, "http": http_url or None, "metrics": metrics_url or None})


def _tell_supervisor(event: str, message: str, http_url: str = "", metrics_url: str = "") -> None:
    from cli.exits import print_json

    print_json({"event": event, "message": message, "http": http_url, "metrics": metrics_url})
