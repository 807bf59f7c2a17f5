"""Who is let in by which key, for whom, and what is written down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.access.guard import Guard
from coordinator.access.keys import ApiKey, Keyring, digest_of, new_key
from coordinator.access.principal import Right
from coordinator.audit import AuditLog
from coordinator.errors import NotAllowedError, UnauthenticatedError
from core.clock import ManualClock

KEYS = Keyring(
    (
        ApiKey(digest_of("acme's"), "acme"),
        ApiKey(digest_of("boss"), "acme", ("infer", "admin"), ("zoo",)),
        ApiKey(digest_of("gateway"), "front", ("infer",), ("*",)),
        ApiKey(digest_of("scraper"), "ops", ("metrics",)),
    )
)


class Fixture:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "audit.jsonl"
        self.audit = AuditLog(self.log)
        self.clock = ManualClock()
        self.guard = Guard("the token", KEYS, self.audit, self.clock)
        self.open_guard = Guard("the token", Keyring(), self.audit, self.clock)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path)
    yield made
    made.audit.close()


@pytest.mark.parametrize("proof", ["Bearer acme's", "bearer acme's", "BEARER  acme's ", " Bearer acme's"])
def test_a_key_is_its_tenants(access: Fixture, proof: str) -> None:
    for given in (proof, (("x", "y"), ("authorization", proof))):
        caller = access.guard.authenticate(given, Right.INFER)
        assert (caller.tenant, caller.key_id) == ("acme", digest_of("acme's")[:12])


@pytest.mark.parametrize(
    "proof",
    [
        None,
        "",
        "acme's",
        "Bearer",
        "Bearer ",
        "Basic acme's",
        "Bearer acme",
        f"Bearer {digest_of('boss')}",
        "Bearer the token",
        "Bearer \ud800",
    ],
)
def test_everything_else_is_refused(access: Fixture, proof: str | None) -> None:
    with pytest.raises(UnauthenticatedError, match="needs an API key"):
        access.guard.authenticate(proof, Right.INFER)


def test_tenants_that_a_key_may_name(access: Fixture) -> None:
    of = access.guard.tenant_of
    acme, boss, gateway = (
        access.guard.authenticate(f"Bearer {key}", Right.INFER) for key in ("acme's", "boss", "gateway")
    )
    assert [of(acme, ""), of(acme, "acme"), of(boss, "zoo"), of(gateway, ""), of(gateway, "zoo")] == [
        "acme",
        "acme",
        "zoo",
        "front",
        "zoo",
    ]
    for caller in (acme, boss):
        with pytest.raises(NotAllowedError) as caught:
            of(caller, "other")
        assert caught.value.field == "tenant"
    assert [each["peer"] for each in access.events()] == [f"key {acme.key_id}", f"key {boss.key_id}"]


def test_rights(access: Fixture) -> None:
    assert access.guard.authenticate("Bearer boss", Right.ADMIN).tenant == "acme"
    with pytest.raises(NotAllowedError, match="no right 'admin'") as caught:
        access.guard.authenticate("Bearer acme's", Right.ADMIN)
    assert caught.value.field == "authorization"


def test_the_cluster_token_administers_whatever_keys_there_are(access: Fixture) -> None:
    for guard in (access.guard, access.open_guard):
        assert guard.authenticate("bearer the token", Right.ADMIN).reach("") == ""
        with pytest.raises(UnauthenticatedError, match="cluster token"):
            guard.authenticate("Bearer another", Right.ADMIN)


def test_who_may_read_metrics(access: Fixture) -> None:
    for key in ("scraper", "boss", "the token"):
        access.guard.authenticate(f"Bearer {key}", Right.METRICS)
    with pytest.raises(NotAllowedError, match="no right 'metrics'"):
        access.guard.authenticate("Bearer acme's", Right.METRICS)
    for right in (Right.INFER, Right.ADMIN):
        with pytest.raises(NotAllowedError):
            access.guard.authenticate("Bearer scraper", right)
    with pytest.raises(UnauthenticatedError, match="needs the cluster token or an API key"):
        access.guard.authenticate(None, Right.METRICS)
    access.open_guard.authenticate(None, Right.METRICS)


def test_without_keys_anyone_infers_for_anyone(access: Fixture) -> None:
    caller = access.open_guard.authenticate("Bearer anything", Right.INFER)
    assert (caller.tenant_of(""), caller.tenant_of("acme")) == ("default", "acme")
    assert access.open_guard.tenant_of(None, "") == "default"


def test_a_door_that_did_not_ask_is_closed_where_there_are_keys(access: Fixture) -> None:
    with pytest.raises(UnauthenticatedError):
        access.guard.tenant_of(None, "acme")


def test_orders_reach_the_callers_tenants_only(access: Fixture) -> None:
    boss = access.guard.authenticate("Bearer boss", Right.ADMIN)
    assert (boss.reach(""), boss.reach("zoo")) == ("acme", "zoo")
    with pytest.raises(NotAllowedError):
        boss.reach("other")


def test_new_keys_hold_at_once(access: Fixture) -> None:
    access.guard.use(Keyring((ApiKey(digest_of("new"), "zoo"),)))
    assert access.guard.authenticate("Bearer new", Right.INFER).tenant == "zoo"
    with pytest.raises(UnauthenticatedError):
        access.guard.authenticate("Bearer acme's", Right.INFER)


def test_taking_away_the_last_key_opens_nothing(access: Fixture) -> None:
    access.open_guard.use(KEYS)
    for guard in (access.guard, access.open_guard):
        guard.use(Keyring())
        with pytest.raises(UnauthenticatedError):
            guard.authenticate(None, Right.INFER)


def test_refusals_are_written_down_and_cannot_fill_the_log(access: Fixture) -> None:
    for _ in range(100):
        with pytest.raises(UnauthenticatedError):
            access.guard.authenticate("Bearer guess", Right.INFER, "ipv4:1.2.3.4:5")
    access.clock.advance(60)
    with pytest.raises(UnauthenticatedError):
        access.guard.authenticate("Bearer guess", Right.INFER, "ipv4:1.2.3.4:5")
    noted = access.events()
    assert [each["left_out"] for each in noted] == [0] * 10 + [90]
    assert {each["peer"] for each in noted} == {"ipv4:1.2.3.4:5"}
    assert "guess" not in access.log.read_text()


def test_made_keys_differ_and_are_known_by_digest() -> None:
    first, second = new_key(), new_key()
    assert first != second
    found = Keyring((ApiKey(digest_of(first), "a"),)).find
    assert found(first) is not None
    assert found(second) is None
