"""Which names a door without keys may be reached by.

A web site can have its own name resolve to this machine (DNS rebinding): to a browser its page and the door
are then one site, and the page may ask and read. That name stands in the request's Host; nothing else can.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from coordinator.errors import MisdirectedError

ANY = "*"
_LOCAL = "localhost"
_ANY_ADDRESS = ("0.0.0.0", "::")
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_MAX_SHOWN_CHARS = 200
_HEADER = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d*)?")


@dataclass(frozen=True, slots=True)
class HostNames:
    """In lower case; "*.NAME" is all that ends so, "*" any. Addresses and localhost go without saying: they
    are no site's name.
    """

    names: frozenset[str] = frozenset()

    def allow(self, host: str) -> bool:
        """`host`: a Host header's value, with a port or without."""
        found = _HEADER.fullmatch(host.strip().lower())
        if ANY in self.names:
            return True
        if found is None:
            return False
        name = (found["address"] or found["name"] or "").removesuffix(".")
        return name == _LOCAL or name.endswith(f".{_LOCAL}") or _is_address(name) or self._has(name)

    def check(self, said: Iterable[str]) -> None:
        """All Host headers of a request; none is no browser's. Raises MisdirectedError."""
        odd = next((host for host in said if not self.allow(host)), None)
        if odd is not None:
            raise MisdirectedError(
                f"this door is not known as {odd[:_MAX_SHOWN_CHARS]!r}: ask it by its address, or start it "
                "with that name allowed (--allow-host) or with API keys"
            )

    def _has(self, name: str) -> bool:
        if name in self.names:
            return True
        _, *rest = name.split(".")
        return any(f"*.{'.'.join(rest[start:])}" in self.names for start in range(len(rest)))


def host_names(listened: str, advertised: str, allowed: Iterable[str]) -> HostNames:
    """Of a door that listens on `listened`, is told to others as `advertised` (empty: as what it listens on),
    and is reached by what an admin allows.
    """
    own = socket.gethostname() if listened in _ANY_ADDRESS else listened
    return HostNames(
        frozenset(name.lower().removesuffix(".") for name in (own, advertised, *allowed) if name)
    )


def check_host_names(setting: str, names: Iterable[str]) -> None:
    """Raises ValueError naming the setting."""
    for name in names:
        if name != ANY and not _is_address(name) and not _NAME.fullmatch(name.lower().removesuffix(".")):
            raise ValueError(f"{setting}: {name!r} is no host name, *.NAME or *; a port is not part of it")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
