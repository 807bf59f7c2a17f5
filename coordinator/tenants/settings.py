"""What each tenant may do and gets where it does not say: records, and the file they come from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import fsum
from pathlib import Path
from typing import Literal

from coordinator.access.keys import ANY_TENANT, ApiKey, Keyring
from coordinator.errors import InvalidFieldError
from core.cache.scope import CacheScope
from core.record import RecordError, decode

DEFAULT_TENANT = "default"  # of requests and uploads that name none
_MAX_NAME_CHARS = 128


def check_tenant_name(name: str) -> None:
    """Raises InvalidFieldError."""
    if len(name) > _MAX_NAME_CHARS:
        raise InvalidFieldError("tenant", f"longer than {_MAX_NAME_CHARS} characters")


@dataclass(frozen=True, slots=True)
class TenantSettings:
    cache_scope: CacheScope = CacheScope.TENANT  # of requests that name none
    may_share_cache: bool = False  # whether its requests may ask for scope CLUSTER
    cache_share: float | None = None  # of every cache, its own whatever others do; None: an equal part
    keys: tuple[ApiKey, ...] = ()  # with which it proves itself


@dataclass(frozen=True, slots=True)
class Tenants:
    """Raises ValueError naming what does not go together."""

    default: TenantSettings = TenantSettings()  # of all that are not named
    named: Mapping[str, TenantSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, settings in self._by_key().items():
            if settings.cache_scope is CacheScope.CLUSTER and not settings.may_share_cache:
                raise ValueError(f"{key}.cache_scope: is cluster, but may_share_cache is not true")
            if settings.cache_share is not None and not 0 <= settings.cache_share <= 1:
                raise ValueError(f"{key}.cache_share: {settings.cache_share:g} is not between 0 and 1")
        if (together := fsum(self.cache_shares.values())) > 1:
            raise ValueError(f"tenants: their cache_share are {together:g} together, more than 1")
        _ = self.keyring

    def of(self, tenant: str) -> TenantSettings:
        return self.named.get(tenant, self.default)

    @property
    def cache_shares(self) -> dict[str, float]:
        """Of the tenants that have one; what they leave is shared in equal parts."""
        found = ((name, settings.cache_share) for name, settings in self.named.items())
        return {name: share for name, share in found if share is not None}

    @property
    def keyring(self) -> Keyring:
        """Of all tenants' keys; empty where anyone may call."""
        return Keyring(key for settings in self.named.values() for key in settings.keys)

    def to_json(self) -> dict[str, object]:
        """As the file would have it, with every setting, but of keys their ids in place of digests."""
        return {
            "default": _plain(self.default),
            "tenants": {name: _plain(settings) for name, settings in self.named.items()},
        }

    def _by_key(self) -> dict[str, TenantSettings]:
        return {"default": self.default} | {f"tenants.{name}": each for name, each in self.named.items()}


@dataclass(frozen=True, slots=True)
class _Key:
    sha256: str
    rights: tuple[Literal["infer", "metrics", "admin"], ...] | None
    tenants: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Settings:
    """A table of the file; None: not given."""

    cache_scope: Literal["none", "tenant", "cluster"] | None
    may_share_cache: bool | None
    cache_share: float | None
    keys: tuple[_Key, ...] | None


@dataclass(frozen=True, slots=True)
class _Default:
    cache_scope: Literal["none", "tenant", "cluster"] | None
    may_share_cache: bool | None


@dataclass(frozen=True, slots=True)
class _File:
    default: _Default
    tenants: dict[str, _Settings]


def load_tenants(path: Path | None) -> Tenants:
    """Of a TOML file with a table `default` and a table `tenants.NAME` for each tenant that differs from it.

    None: nobody is named. Raises ValueError naming the file and the key that does not fit.
    """
    if path is None:
        return Tenants()
    try:
        return parse_tenants(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no TOML (not UTF-8)") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_tenants(content: str) -> Tenants:
    """Raises ValueError naming the key that does not fit."""
    try:
        table = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is no TOML ({error})") from None
    file: _File = decode(_File, _filled(table))
    default = TenantSettings(
        CacheScope(file.default.cache_scope or "tenant"), bool(file.default.may_share_cache)
    )
    return Tenants(default, {name: _settings(name, each, default) for name, each in file.tenants.items()})


def _settings(name: str, given: _Settings, default: TenantSettings) -> TenantSettings:
    scope = given.cache_scope
    may = given.may_share_cache
    return TenantSettings(
        default.cache_scope if scope is None else CacheScope(scope),
        default.may_share_cache if may is None else may,
        given.cache_share,
        tuple(_key(f"tenants.{name}.keys[{at}]", name, each) for at, each in enumerate(given.keys or ())),
    )


def _key(place: str, tenant: str, given: _Key) -> ApiKey:
    """Raises RecordError naming the place in the file."""
    others = given.tenants or ()
    if ANY_TENANT in others and len(others) > 1:
        raise RecordError(f"{place}.tenants", "names others beside the one that stands for all")
    try:
        return ApiKey(given.sha256, tenant, ("infer",) if given.rights is None else given.rights, others)
    except ValueError as error:
        raise RecordError(place, str(error)) from None


def _filled(table: dict[str, object]) -> dict[str, object]:
    """With None for every setting that is left out, as records want it."""
    tenants = table.get("tenants", {})
    if not isinstance(tenants, dict):
        raise RecordError("tenants", "should be a table")
    return table | {
        "default": _with_all(_Default, table.get("default", {})),
        "tenants": {name: _with_all(_Settings, _with_whole_keys(each)) for name, each in tenants.items()},
    }


def _with_whole_keys(settings: object) -> object:
    if not isinstance(settings, dict) or not isinstance(settings.get("keys"), list):
        return settings
    optional = {"rights": None, "tenants": None}
    return settings | {
        "keys": [optional | each if isinstance(each, dict) else each for each in settings["keys"]]
    }


def _with_all(record: type[_Default | _Settings], given: object) -> object:
    return (
        dict.fromkeys((each.name for each in fields(record)), None) | given
        if isinstance(given, dict)
        else given
    )


def _plain(settings: TenantSettings) -> dict[str, object]:
    plain: dict[str, object] = {
        "cache_scope": settings.cache_scope.value,
        "may_share_cache": settings.may_share_cache,
    }
    if settings.cache_share is not None:
        plain["cache_share"] = settings.cache_share
    if settings.keys:
        plain["keys"] = [_plain_key(key) for key in settings.keys]
    return plain


def _plain_key(key: ApiKey) -> dict[str, object]:
    return {"id": key.key_id, "rights": list(key.rights), "tenants": list(key.tenants)}
