"""elasticmm stage: one stage server in the foreground, for clusters over several machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import FAILED, USAGE, fail, print_json
from cli.options import (
    AdvertiseOption,
    AttentionOption,
    CacheHostOption,
    CachePolicyOption,
    CacheTtlOption,
    ChecksumsOption,
    ChunkTokensOption,
    CoresOption,
    DeviceOption,
    DtypeOption,
    EmbeddingBlocksOption,
    EncodeOrderOption,
    EncodingOption,
    HostOption,
    JsonOption,
    KvBlocksOption,
    LogFormatOption,
    LogLevelOption,
    ModelOption,
    PrefixCacheOption,
    PromptOrderOption,
    ReflectionOption,
    StateDirOption,
    ThreadsOption,
    TimeScaleOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsNameOption,
    TokenFileOption,
    TransportOption,
)
from cli.settings_file import ConfigOption
from cli.state import DEFAULT_NAME, find_state_dir

if TYPE_CHECKING:
    from stage_servers.config import StageConfig

_NOT_CONFIGURED = frozenset({"config_file", "as_json"})


def run(
    *,
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator to attach to.")],
    roles: Annotated[str, typer.Option(metavar="ROLES", help="Stages to play: letters of 'epd'.")] = "epd",
    model: ModelOption = None,
    token_file: TokenFileOption = None,
    state_dir: StateDirOption = None,
    instance_id: Annotated[
        str, typer.Option("--id", metavar="NAME", help="Wanted name. Default: the coordinator chooses.")
    ] = "",
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="Cluster name, for shared memory files.")
    ] = DEFAULT_NAME,
    host: HostOption = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Of the transfer service; 0: any.")
    ] = 0,
    advertise: AdvertiseOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
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
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_ca: TlsCaOption = None,
    tls_name: TlsNameOption = None,
    reflection: ReflectionOption = True,
    log_level: LogLevelOption = "INFO",
    log_format: LogFormatOption = "text",
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Loads the model and serves its stages for one coordinator. Needs the cluster token.

    With --json it prints its id as one object, once the coordinator knows it.
    """
    settings = {name: value for name, value in locals().items() if name not in _NOT_CONFIGURED}
    serve(make_config(**settings), as_json=as_json)


def make_config(
    *,
    model: Path | None,
    token_file: Path | None,
    state_dir: Path | None,
    roles: str,
    device: str,
    cores: str | None,
    log_level: str,
    **settings: Any,
) -> StageConfig:
    """From the command's options by name; exits 2 where one is wrong. None leaves a setting its default."""
    from cli.devices import choose_cores, choose_device
    from cli.endpoint import check_address
    from cli.model_folder import model_folder
    from core.families import check_model
    from core.profile_file import load_profile
    from core.stages import parse_roles
    from stage_servers.config import StageConfig

    try:
        check_address("coordinator", settings["coordinator"])
        folder = model_folder(model)
        check_model(folder)
        config = StageConfig(
            model=folder,
            token=cluster_token(token_file, state_dir),
            roles=parse_roles(roles),
            device=choose_device(device),
            cores=choose_cores(cores) if cores else None,
            log_level=log_level.upper(),
            **{key: value for key, value in settings.items() if value is not None},
        )
        if config.emulated is not None:
            load_profile(config.emulated)
    except ValueError as error:
        fail(str(error), USAGE)
    return config


def cluster_token(token_file: Path | None, state_dir: Path | None) -> str:
    """Exits 2 where there is none; raises ValueError if the file cannot be read or is empty."""
    from cli.endpoint import find_token

    token = find_token(token_file, find_state_dir(state_dir))
    if token is None:
        fail("no cluster token: name the file with --token-file or set ELASTICMM_TOKEN", USAGE)
    return token


def serve(config: StageConfig, *, as_json: bool = False) -> None:
    """Until a signal or the coordinator's stop; exits 1 with the reason if it cannot start."""
    import os

    from cli.compute_environment import compute_environment

    os.environ.update(compute_environment())
    typer.echo(f"loading {config.model} for the coordinator at {config.coordinator}", err=True)
    from stage_servers import server

    try:
        server.run(config, model=None, on_ready=tell_program if as_json else tell_user)
    except (ValueError, OSError, RuntimeError) as error:
        if as_json:
            print_json({"error": {"message": str(error)}})
        fail(str(error), FAILED)


def tell_user(instance_id: str) -> None:
    typer.echo(f"stage server {instance_id} ready")


def tell_program(instance_id: str) -> None:
    print_json({"instance_id": instance_id})
