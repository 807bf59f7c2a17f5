"""API keys as the coordinator knows them: by their digests only."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.access.principal import Principal, Right

ANY_TENANT = "*"
_PREFIX = "emm-"  # by which scanners and people tell such a key
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID_CHARS = 12


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Raises ValueError naming the field that does not fit."""

    sha256: str  # of the key, 64 lower-case hexadecimal digits
    tenant: str  # whose it is
    rights: tuple[str, ...] = (Right.INFER.value,)
    tenants: tuple[str, ...] = ()  # that it may speak for besides its own; "*": any

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError("sha256: is not 64 lower-case hexadecimal digits")
        if not self.rights:
            raise ValueError("rights: is empty")
        if unknown := set(self.rights) - set(Right):
            known = ", ".join(Right)
            raise ValueError(f"rights: {min(unknown)!r} is not one of {known}")

    @property
    def key_id(self) -> str:
        """Its name in logs, which tells nothing of the key."""
        return self.sha256[:_ID_CHARS]

    @property
    def principal(self) -> Principal:
        tenants = None if ANY_TENANT in self.tenants else frozenset(self.tenants)
        return Principal(self.tenant, frozenset(map(Right, self.rights)), tenants, self.key_id)


class Keyring:
    """All keys in force. Raises ValueError where two are the same."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self.keys = tuple(keys)
        self._keys = {key.sha256: key for key in self.keys}
        if len(self._keys) < len(self.keys):
            raise ValueError("keys: a digest stands there twice")

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, secret: str) -> Principal | None:
        """Whose key it is.

        The table is searched by digest, which nobody can steer bit by bit towards another key's; whether
        it is the same is compared in constant time.
        """
        digest = digest_of(secret)
        found = self._keys.get(digest)
        if found is None or not hmac.compare_digest(found.sha256, digest):
            return None
        return found.principal


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def new_key() -> str:
    """256 random bits: too many to guess, so that a plain digest of it may be known."""
    return _PREFIX + secrets.token_urlsafe(32)
