"""How a command reaches a running cluster, and how it ends where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.endpoint import Endpoint, find_endpoint
from cli.exits import USAGE, fail, failures
from cli.state import find_state_dir
from elasticmm_client import AdminClient, Client


def endpoint_of(
    name: str, state_dir: Path | None, address: str | None, token_file: Path | None = None
) -> Endpoint:
    """The cluster that the options name; exits 2 where a token cannot be read."""
    try:
        return find_endpoint(find_state_dir(state_dir, name), address, token_file)
    except ValueError as error:
        fail(str(error), USAGE)


def admin_client(endpoint: Endpoint) -> AdminClient:
    return AdminClient(endpoint.address, endpoint.token, api_key=endpoint.api_key, tls=endpoint.tls)


@contextmanager
def admin_of(endpoint: Endpoint, *, as_json: bool) -> Iterator[AdminClient]:
    """For calls that need the cluster token; a failed one is printed and exits as `failures` says."""
    with failures(as_json=as_json), admin_client(endpoint) as admin:
        yield admin


@contextmanager
def client_of(endpoint: Endpoint, *, as_json: bool) -> Iterator[Client]:
    """For requests; a failed one is printed and exits as `failures` says."""
    with (
        failures(as_json=as_json),
        Client(endpoint.address, api_key=endpoint.api_key, tls=endpoint.tls) as client,
    ):
        yield client
