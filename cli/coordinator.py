"""elasticmm coordinator: the control plane alone, for clusters over several machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import FAILED, USAGE
from cli.options import (
    AdvertiseOption,
    AllowPrivateOption,
    CacheAwareOption,
    HostOption,
    HttpPortOption,
    LogLevelOption,
    ModelNameOption,
    ModelOption,
    PolicyOption,
    ProfileOption,
    SloOption,
    TokenFileOption,
)
from cli.state import DEFAULT_NAME, find_state_dir

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig


def run(
    *,
    model: ModelOption = None,
    topology: Annotated[
        str | None,
        typer.Option(help="Instances to expect: auto, coupled, e1p1d1, … Default: whoever registers."),
    ] = None,
    instances: Annotated[int | None, typer.Option(min=1, help="Number of stage servers to expect.")] = None,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 50051,
    advertise: AdvertiseOption = None,
    token_file: TokenFileOption = None,
    model_name: ModelNameOption = "",
    max_waiting: Annotated[int | None, typer.Option(min=1, help="Requests that may wait.")] = None,
    policy: PolicyOption = None,
    profile: ProfileOption = None,
    slo: SloOption = None,
    cache_aware: CacheAwareOption = True,
    allow_private_urls: AllowPrivateOption = False,
    heartbeat_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Instances that are silent for longer are given up. Default: 10."
        ),
    ] = None,
    http_port: HttpPortOption = None,
    log_level: LogLevelOption = "INFO",
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Serves clients and directs stage servers, which attach with 'elasticmm stage'."""
    import logging

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    tell = _tell_supervisor if supervised else _tell_user
    if supervised:
        from stage_servers.forkserver import die_with_parent

        die_with_parent()
    try:
        config = make_config(
            model=model,
            model_name=model_name,
            token_file=token_file,
            allow_private_urls=allow_private_urls,
            slo=slo,
            host=host,
            port=port,
            advertise_host=advertise,
            topology=topology,
            num_instances=instances,
            max_waiting=max_waiting,
            heartbeat_timeout_s=heartbeat_timeout,
            policy=policy,
            profile=profile,
            cache_aware=cache_aware,
            http_port=http_port,
        )
    except ValueError as error:
        tell("failed", str(error))
        raise typer.Exit(USAGE) from error
    serve(config, tell)


def make_config(
    *,
    model: Path | None,
    model_name: str,
    token_file: Path | None,
    allow_private_urls: bool,
    slo: str | None,
    **settings: Any,
) -> CoordinatorConfig:
    """From the command's options; None leaves a setting its default. Raises ValueError."""
    from cli.model_folder import model_folder, served_name
    from cli.slo import parse_slo
    from coordinator.config import CoordinatorConfig, MediaLimits
    from core.profile_file import load_profile

    if settings.get("profile"):
        load_profile(settings["profile"])
    if slo is not None:
        settings["slo_ttft_s"], settings["slo_tpot_s"] = parse_slo(slo)
    return CoordinatorConfig(
        model_path=model_folder(model),
        cluster_token=read_or_make_token(token_file),
        model_name=served_name(model, model_name),
        media=MediaLimits(allow_private_urls=allow_private_urls),
        **{name: value for name, value in settings.items() if value is not None},
    )


def serve(config: CoordinatorConfig, tell: Any) -> None:
    """Until a signal or Admin.Shutdown; exits 1 with the reason if it cannot start."""
    from coordinator import server

    try:
        server.run(config, on_ready=lambda ready: tell("ready", ready.endpoint, ready.http_endpoint))
    except (ValueError, OSError, RuntimeError) as error:
        tell("failed", str(error))
        raise typer.Exit(FAILED) from error


def read_or_make_token(token_file: Path | None) -> str:
    """The token given or of the default cluster; a new one is written there where none is.

    Raises ValueError if a given file cannot be read.
    """
    from cli.endpoint import find_token
    from core.access import new_token, write_token

    state = find_state_dir(None, DEFAULT_NAME)
    token = find_token(token_file, state)
    if token is None:
        token = new_token()
        state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_token(state.token_path, token)
        typer.echo(f"cluster token written to {state.token_path}", err=True)
    return token


def _tell_user(event: str, message: str, http_endpoint: str = "") -> None:
    if event == "failed":
        typer.echo(f"elasticmm: {message}", err=True)
        return
    http = f", OpenAI's API at http://{http_endpoint}/v1" if http_endpoint else ""
    typer.echo(f"coordinator ready at {message}{http}")


def _tell_supervisor(event: str, message: str, http_endpoint: str = "") -> None:
    from cli.exits import print_json

    print_json({"event": event, "message": message, "http": http_endpoint})
