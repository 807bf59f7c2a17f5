"""The `elasticmm` command.

Exit codes: 0 done, 1 the request or the start failed, 2 wrong usage, 3 the
cluster cannot be reached.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

COMMANDS = (
    "up",
    "down",
    "status",
    "plan",
    "why",
    "cache",
    "slo",
    "pin",
    "unpin",
    "drain",
    "resume",
    "generate",
    "migrate",
    "profile",
    "simulate",
    "coordinator",
    "stage",
    "doctor",
    "top",
    "trace",
    "chat",
    "logs",
    "key",
    "serve-http",
    "shadow",
    "ab",
    "bench",
)


def _file(name: str, meaning: str) -> Any:
    return typer.Option(f"--tls-{name}", metavar="FILE", resolve_path=True, help=meaning)


def build_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The command with these sub-commands; only their files are imported."""
    app = typer.Typer(
        callback=_root,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Serves multimodal LLMs on separate encode, prefill and decode servers.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cluster not reachable.",
    )
    for name in names:
        module = importlib.import_module(f"cli.{name.replace('-', '_')}")
        if hasattr(module, "app"):  # it has sub-commands of its own
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.run)
    return app


def _root(
    tls_ca: Annotated[Path | None, _file("ca", "CA that the cluster's certificate comes from (PEM).")] = None,
    tls_cert: Annotated[Path | None, _file("cert", "This client's certificate, where one is wanted.")] = None,
    tls_key: Annotated[Path | None, _file("key", "Its key (PEM).")] = None,
    tls_name: Annotated[
        str | None, typer.Option("--tls-name", metavar="NAME", help="Name in the cluster's certificate.")
    ] = None,
) -> None:
    """Before the command: how it reaches a cluster that `up` did not write down here."""
    given = {"CA": tls_ca, "CERT": tls_cert, "KEY": tls_key, "NAME": tls_name}
    os.environ.update({f"ELASTICMM_TLS_{name}": str(value) for name, value in given.items() if value})


def main() -> None:
    wanted = sys.argv[1:2]
    build_app(wanted if set(wanted) & set(COMMANDS) else COMMANDS)()


if __name__ == "__main__":
    main()
