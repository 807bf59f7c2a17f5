"""The `elasticmm` command.

Exit codes: 0 done, 1 the request or the start failed, 2 wrong usage, 3 the
cluster cannot be reached, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

# What the first page of help says of each, in its order.
COMMANDS = {
    "up": "Start a cluster on this host.",
    "down": "End it.",
    "status": "Show instances and what they send to each other.",
    "top": "Watch instances, queues, latencies and decisions.",
    "logs": "Show the logs of a cluster that 'up' started.",
    "doctor": "Find out what is wrong with this machine or cluster.",
    "generate": "Ask one question, about pictures if wanted.",
    "chat": "Hold a conversation.",
    "bench": "Send made-up load and measure it.",
    "plan": "Show who plays what, and who is to.",
    "why": "Show what the policies decided, and why.",
    "slo": "Show how many calls met their targets.",
    "trace": "Show where the time of one request went.",
    "cache": "Show, explain and empty caches.",
    "pin": "Have an instance play given stages, or serve a group.",
    "unpin": "Let the policies decide again.",
    "drain": "Move work off an instance, before maintenance.",
    "resume": "Give it work again.",
    "migrate": "Move a running request to another instance.",
    "shadow": "Have a second policy set decide without acting.",
    "ab": "Compare two policy sets on shares of the instances.",
    "coordinator": "Run the coordinator alone, for several machines.",
    "stage": "Run one stage server.",
    "serve-http": "Serve OpenAI's API in front of a coordinator.",
    "key": "Make an API key.",
    "profile": "Measure what work costs on a device.",
    "simulate": "Compare policies in virtual time.",
}
_HELP_COLUMNS = 110
_EPILOG = """\b
Environment: ELASTICMM_TOKEN (cluster token), ELASTICMM_API_KEY (key of calls where there are keys),
  ELASTICMM_TLS_CA, _CERT, _KEY, _NAME (as --tls-…).
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cluster not reachable, 130 interrupted."""


def _file(name: str, meaning: str) -> Any:
    return typer.Option(f"--tls-{name}", metavar="FILE", resolve_path=True, help=meaning)


def build_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command with these sub-commands; only their files are imported."""
    app = typer.Typer(
        callback=_root,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"max_content_width": _HELP_COLUMNS},
        help="Serves multimodal LLMs on separate encode, prefill and decode servers.",
        epilog=_EPILOG,
    )
    for name in names:
        module = importlib.import_module(f"cli.{name.replace('-', '_')}")
        if hasattr(module, "app"):  # it has sub-commands of its own
            app.add_typer(module.app, name=name, short_help=COMMANDS[name])
        else:
            app.command(name, short_help=COMMANDS[name])(module.run)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from core.version import version as running  # a tenth of a second for the commands that need none

        print(f"elasticmm {running()}")
        raise typer.Exit


def _root(
    tls_ca: Annotated[Path | None, _file("ca", "CA that the cluster's certificate comes from (PEM).")] = None,
    tls_cert: Annotated[Path | None, _file("cert", "This client's certificate, where one is wanted.")] = None,
    tls_key: Annotated[Path | None, _file("key", "Its key (PEM).")] = None,
    tls_name: Annotated[
        str | None, typer.Option("--tls-name", metavar="NAME", help="Name in the cluster's certificate.")
    ] = None,
    version: Annotated[  # noqa: ARG001  (its callback has ended the program)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Before the command: how it reaches a cluster that `up` did not write down here."""
    given = {"CA": tls_ca, "CERT": tls_cert, "KEY": tls_key, "NAME": tls_name}
    os.environ.update({f"ELASTICMM_TLS_{name}": str(value) for name, value in given.items() if value})


def main() -> None:
    wanted = sys.argv[1:2]
    try:
        app = build_app(wanted if set(wanted) & set(COMMANDS) else COMMANDS)
    except KeyboardInterrupt:  # while the command was imported
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
