"""Whether what is to listen here can."""

from __future__ import annotations

import socket

from cli.launch.events import LaunchError
from cli.launch.plan import LaunchPlan


def why_taken(host: str, port: int) -> str | None:
    """The system's reason why nobody can listen there; None: somebody can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def check_ports(plan: LaunchPlan) -> None:
    """Of the coordinator, before anything is started. Raises LaunchError naming the option."""
    given = {"--port": plan.port, "--http-port": plan.http_port, "--metrics-port": plan.metrics_port}
    for option, port in given.items():
        reason = why_taken(plan.host, port) if port else None  # 0 takes a free one, None: none
        if reason is not None:
            where = f"{plan.host}:{port}"
            raise LaunchError(f"cannot listen on {where}: {reason} (choose another with {option} or --host)")
