"""Which addresses a URL may lead to."""

from __future__ import annotations

import ipaddress

import pytest

from coordinator.errors import InvalidFieldError
from coordinator.media.addresses import checked_address, is_public

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2001:db8::1",
    "0.1.2.3",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.8",
    "192.88.99.1",
    "198.51.100.1",
    "203.0.113.1",
    "::ffff:0.0.0.0",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::127.0.0.1",
    "2001:0:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2001:4860::5efe:10.0.0.1",
    "2001:4860::200:5efe:127.0.0.1",
    "100::1",
    "3fff::1",
    "5f00::1",
    "fec0::1",
    "fd00:ec2::254",
    "ff0e::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "64:ff9b::808:808",
    "2001:4860::5efe:8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def resolver(*addresses: str):
    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


async def test_the_first_public_address() -> None:
    resolve = resolver("8.8.8.8", "1.1.1.1")
    assert await checked_address("x.test", 80, allow_private=False, resolve=resolve) == "8.8.8.8"


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("fe80::1%eth0",), ()])
async def test_one_private_address_is_enough_to_refuse(addresses: tuple[str, ...]) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await checked_address("x.test", 80, allow_private=False, resolve=resolver(*addresses))
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "::1"]
)
async def test_spellings_of_this_host(host: str) -> None:
    """As the system's own resolver reads them."""
    with pytest.raises(InvalidFieldError):
        await checked_address(host, 80, allow_private=False)
    assert await checked_address("127.1", 80, allow_private=True) == "127.0.0.1"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".test", "bad..name"])
async def test_hosts_that_do_not_resolve(host: str) -> None:
    with pytest.raises(InvalidFieldError, match="does not resolve"):
        await checked_address(host, 80, allow_private=True)
