"""How a command reaches a running cluster, and how it ends where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.endpoint import Endpoint, find_endpoint
from cli.exits import UNREACHABLE, USAGE, fail, failures
from cli.state import DEFAULT_NAME, find_state_dir
from elasticmm_client import AdminClient, Client


def endpoint_of(
    name: str,
    state_dir: Path | None,
    address: str | None,
    token_file: Path | None = None,
    *,
    has_to_be_up: bool = True,
    as_json: bool = False,
) -> Endpoint:
    """The cluster that the options name; exits 2 where a token cannot be read, 3 where none is up.

    Who names a cluster means no other, so only without a name the usual port here is taken for it.
    """
    state = find_state_dir(state_dir, name)
    is_named = address is None and (state_dir is not None or name != DEFAULT_NAME)
    try:
        if has_to_be_up and is_named and state.read_record() is None:
            fail(f"no cluster is up on {state.path}", UNREACHABLE, as_json=as_json)
        return find_endpoint(state, address, token_file)
    except ValueError as error:
        fail(str(error), USAGE, as_json=as_json)


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
