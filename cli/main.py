"""The `elasticmm` command.

Exit codes: 0 done, 1 the request or the start failed, 2 wrong usage, 3 the
cluster cannot be reached.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

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
)


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
        module = importlib.import_module(f"cli.{name}")
        if hasattr(module, "app"):  # it has sub-commands of its own
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.run)
    return app


def _root() -> None:
    """Makes sub-commands of them, also where there is one."""


def main() -> None:
    wanted = sys.argv[1:2]
    build_app(wanted if set(wanted) & set(COMMANDS) else COMMANDS)()


if __name__ == "__main__":
    main()
