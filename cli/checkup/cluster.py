"""Whether the port is free for a cluster, or the cluster that runs can be reached."""

from __future__ import annotations

from collections.abc import Iterator

from cli.checkup.finding import Finding, fine, note, problem
from cli.connection import admin_client
from cli.endpoint import DEFAULT_PORT, Endpoint
from cli.launch.ports import why_taken
from cli.state import StateDir
from elasticmm_client import ElasticMMError
from elasticmm_client.errors import NotRunning
from elasticmm_client.status import ClusterStatus

_TIMEOUT_S = 5.0


def check_cluster(state: StateDir, endpoint: Endpoint, *, is_named: bool) -> Iterator[Finding]:
    """`is_named`: the address was given, so something is to answer there."""
    if is_named or state.read_record() is not None:
        yield check_answer(endpoint, state)
    else:
        yield check_port(DEFAULT_PORT)


def check_answer(endpoint: Endpoint, state: StateDir) -> Finding:
    """Asks for the cluster's status."""
    subject = f"cluster at {endpoint.address}"
    try:
        with admin_client(endpoint) as admin:
            return describe(subject, admin.status(timeout_s=_TIMEOUT_S))
    except NotRunning as error:
        return problem(
            subject,
            f"does not answer: {error}",
            f"elasticmm logs, then elasticmm down --state-dir {state.path} and up again"
            if state.read_record() is not None
            else "see that it runs, that --host is not 127.0.0.1 there, and that no firewall is between",
        )
    except ElasticMMError as error:
        return problem(subject, f"refuses: {error}", "give its token with --token-file or $ELASTICMM_TOKEN")


def describe(subject: str, status: ClusterStatus) -> Finding:
    said = f"serves {status.model}, {len(status.instances)} instances"
    if not status.is_ready:
        return problem(subject, f"{said}, {status.instances_missing} missing", "elasticmm logs says why")
    return fine(subject, said)


def check_port(port: int) -> Finding:
    """Whether a coordinator could listen there."""
    subject = f"port {port}"
    if (reason := why_taken("127.0.0.1", port)) is not None:
        return note(subject, f"is taken ({reason})", "elasticmm up --port N with another")
    return fine(subject, "free; no cluster is up")
