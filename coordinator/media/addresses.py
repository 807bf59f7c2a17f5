"""Which network addresses a URL may lead to: the public ones."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from coordinator.errors import InvalidFieldError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # in the third quarter of an address, before the IPv4 one
# Not for the public's use, though not called private: protocol assignments, 6to4 relays, site-local,
# documentation and segment identifiers; and what a cloud's host answers its guests at.
_CLOSED = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "3fff::/20", "5f00::/16", "168.63.129.16/32"),
    )
)


def is_public(address: IpAddress) -> bool:
    """False for private, loopback, link-local, multicast, reserved and unspecified addresses.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64, ISATAP) is as public as that.
    """
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if any(address in network for network in _CLOSED):
        return False
    return all(is_public(inner) for inner in _carried(address))


def _carried(address: IpAddress) -> list[ipaddress.IPv4Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [inner for inner in carried if inner is not None]


async def resolve_host(host: str, port: int) -> list[str]:
    """The host's addresses as the system finds them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


async def checked_address(
    host: str, port: int, *, allow_private: bool, resolve: Resolve = resolve_host
) -> str:
    """The one address to connect to, resolved once, so that no second answer can differ.

    Raises InvalidFieldError("url") if the host has no address, or any that is not public.
    """
    try:
        found = await resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise InvalidFieldError("url", f"host {host!r} does not resolve ({error})") from error
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    if not addresses:
        raise InvalidFieldError("url", f"host {host!r} does not resolve")
    if not allow_private and not all(map(is_public, addresses)):
        raise InvalidFieldError("url", f"host {host!r} leads to an address that is not public")
    return str(addresses[0])
