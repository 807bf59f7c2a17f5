"""elasticmm serve-http: OpenAI's API by itself, in several processes if wanted, in front of a coordinator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import endpoint_of
from cli.exits import USAGE, fail, print_json
from cli.limit_options import MaxConnectionsOption
from cli.options import (
    AddressOption,
    AllowHostOption,
    HostOption,
    JsonOption,
    LogFormatOption,
    LogLevelOption,
    NameOption,
    StateDirOption,
)
from cli.settings_file import ConfigOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from coordinator.front.reach import Reach
    from coordinator.front.settings import FrontSettings
    from coordinator.front.workers import Workers
    from core.tls import TlsFiles
    from elasticmm_client import Tls


def _file(name: str, meaning: str) -> Any:
    return typer.Option(f"--tls-{name}", metavar="FILE", resolve_path=True, help=meaning)


def run(
    *,
    address: AddressOption = None,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that share the port.")] = 1,
    drain: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="On SIGTERM, answers under way have so long to end."),
    ] = 30.0,
    tls_cert: Annotated[Path | None, _file("cert", "This door's certificate (PEM): it speaks HTTPS.")] = None,
    tls_key: Annotated[Path | None, _file("key", "Its key (PEM).")] = None,
    tls_ca: Annotated[
        Path | None, _file("ca", "CA (PEM): callers must have a certificate of it. Default: they need none.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Has metrics of all workers for Prometheus, at /metrics; 0 takes a free one. Default: none.",
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="They need no key: who can reach it may read.")
    ] = "127.0.0.1",
    allow_host: AllowHostOption = None,
    max_connections: MaxConnectionsOption = None,
    log_level: LogLevelOption = "INFO",
    log_format: LogFormatOption = "text",
    as_json: JsonOption = False,
    config_file: ConfigOption = None,  # noqa: ARG001
) -> None:
    """Serves OpenAI's API in front of a coordinator, until Ctrl-C or SIGTERM. Once more ends it at once.

    Which coordinator that is, and how TLS reaches it, is said as for other commands (elasticmm --tls-ca …);
    the TLS options here are for callers. They may do what the coordinator lets their keys do.
    """
    from coordinator.front.settings import FrontSettings
    from coordinator.listening.crowd import DEFAULT_MOST
    from core.log_lines import start_log

    endpoint = endpoint_of(name, state_dir, address)
    try:
        start_log(log_level.upper(), log_format, "http")
        settings = FrontSettings(
            reach=_reach(endpoint.address, endpoint.tls),
            host=host,
            port=port,
            tls=_listener_tls(tls_cert, tls_key, tls_ca),
            tls_client_cert=tls_ca is not None,
            drain_s=drain,
            allow_hosts=tuple(allow_host or ()),
            max_connections=max_connections or DEFAULT_MOST,
            log_level=log_level.upper(),
            log_format=log_format,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
        )
    except ValueError as error:
        fail(str(error), USAGE)
    try:
        asyncio.run(_serve(settings, workers, as_json=as_json))
    except (OSError, RuntimeError) as error:
        fail(str(error))


def _reach(address: str, tls: Tls | None) -> Reach:
    from coordinator.front.reach import Reach, ReachTls

    if tls is None:
        return Reach(address)
    ca, cert, key = (None if path is None else str(path.resolve()) for path in (tls.ca, tls.cert, tls.key))
    return Reach(address, ReachTls(ca, cert, key, tls.name))


def _listener_tls(cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """None where no option is given. Raises ValueError where one is missing or a file does not fit."""
    from core.tls import TlsFiles

    if cert is None or key is None:
        if cert or key or ca:
            raise ValueError("tls_cert, tls_key: are needed together")
        return None
    return TlsFiles(cert, key, ca or cert)  # without a CA no caller is asked for a certificate


async def _serve(settings: FrontSettings, num_workers: int, *, as_json: bool) -> None:
    """Raises OSError where the address cannot be listened on, RuntimeError where a worker does not start."""
    from coordinator.front.workers import Workers

    workers = Workers(settings, num_workers)
    port = await workers.start()
    stopping = _on_signals(workers)
    _print_ready(settings, port, workers, as_json=as_json)
    await stopping.wait()
    await workers.stop()


def _on_signals(workers: Workers) -> asyncio.Event:
    """Set by the first signal; the next one kills."""
    import signal

    stopping = asyncio.Event()

    def take() -> None:
        if stopping.is_set():
            workers.kill()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, take)
    return stopping


def _print_ready(settings: FrontSettings, port: int, workers: Workers, *, as_json: bool) -> None:
    from coordinator.listening.options import endpoint

    scheme = "http" if settings.tls is None else "https"
    url = f"{scheme}://{endpoint(settings.host, port)}"
    metrics = ""
    if settings.metrics_port is not None:
        metrics = f"{scheme}://{endpoint(settings.metrics_host, workers.metrics_port)}/metrics"
    if as_json:
        print_json(
            {
                "http": url,
                "coordinator": settings.reach.address,
                "workers": workers.pids,
                "metrics": metrics or None,
            }
        )
        return
    print(f"OpenAI's API at {url}/v1, in front of {settings.reach.address}", flush=True)
    if metrics:
        print(f"metrics at {metrics}", flush=True)
