"""Names that a door without keys is reached by."""

from __future__ import annotations

import socket

import pytest

from coordinator.access.hosts import HostNames, check_host_names, host_names
from coordinator.errors import MisdirectedError

OURS = host_names("Door.Internal", "front.example", ["*.lab.example", "db1"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "app.localhost:8000",
        "127.0.0.1:8000",
        "192.168.1.5",
        "[::1]:8000",
        "[fe80::1]",
        "door.internal:8000",
        "door.internal.",
        "front.example",
        "a.lab.example",
        "a.b.lab.example:1",
        "db1",
    ],
)
def test_ours(host: str) -> None:
    assert OURS.allow(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "notlocalhost",
        "lab.example",
        "alab.example",
        "127.0.0.1.evil.example",
        "[::1].evil.example",
        "[evil.example]",
        "::1:8000",
        "localhost@evil.example",
        "localhost:80:80",
        "",
    ],
)
def test_others(host: str) -> None:
    assert not OURS.allow(host)


def test_any() -> None:
    assert host_names("::", "", ["*"]).allow("evil.example")


def test_a_door_at_all_addresses_has_the_machines_name() -> None:
    assert host_names("0.0.0.0", "", ()) == HostNames(frozenset({socket.gethostname().lower()}))


@pytest.mark.parametrize("name", ["", "a b", "http://a", "a:80", "*.", "a.*", "**"])
def test_what_is_no_name_is_said(name: str) -> None:
    with pytest.raises(ValueError, match="^allow_hosts: "):
        check_host_names("allow_hosts", ("fine", "*.fine", "*", "::1", name))


def test_every_host_of_a_request_has_to_be_ours() -> None:
    OURS.check([])
    OURS.check(["db1", "127.0.0.1"])
    with pytest.raises(MisdirectedError, match=r"not known as 'evil.example:1'.*--allow-host"):
        OURS.check(["db1", "evil.example:1"])
