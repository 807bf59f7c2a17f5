"""The one place where every door asks who calls, and whether that may be."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.access.keys import Keyring
from coordinator.access.principal import Principal, Right
from coordinator.access.refusals import Refusals
from coordinator.audit import AuditLog
from coordinator.errors import ServiceError, UnauthenticatedError
from coordinator.tenants.settings import DEFAULT_TENANT
from core.access import METADATA_KEY, bearer_secrets, is_same_secret, why_refused
from core.clock import Clock

Metadata = Iterable[tuple[str, str | bytes]]  # of a gRPC call, names in lower case
Proof = Metadata | str | None  # or an Authorization header's value; None: there is none

ALL_RIGHTS = frozenset(Right)
OPEN_RIGHTS = ALL_RIGHTS - {Right.ADMIN}  # anyone's while there are no keys
_ANYONE = Principal(DEFAULT_TENANT, OPEN_RIGHTS, tenants=None)
_CLUSTER = Principal(DEFAULT_TENANT, ALL_RIGHTS, tenants=None)


class Guard:
    """Without keys anyone may infer for any tenant and read metrics; to administer needs a key or the cluster
    token, which also reads metrics.

    Once there were keys it stays closed, also when the last one is taken away: a file of tenants that
    was cut off must not open the doors. `is_open` False: there were some before.
    """

    def __init__(
        self, cluster_token: str, keyring: Keyring, audit: AuditLog, clock: Clock, *, is_open: bool = True
    ) -> None:
        self._token = cluster_token
        self._keyring = keyring
        self._is_open = is_open and not keyring
        self._refusals = Refusals(audit, clock)

    @property
    def is_open(self) -> bool:
        """Whether anyone may infer."""
        return self._is_open

    def use(self, keyring: Keyring) -> None:
        """From now on; calls that have begun go on."""
        self._keyring = keyring
        self._is_open = self._is_open and not keyring

    def authenticate(self, proof: Proof, right: Right, peer: str = "") -> Principal:
        """Who calls, where this right is needed; `peer` is for the audit log only.

        Raises UnauthenticatedError, or NotAllowedError where the key has other rights.
        """
        try:
            return self.find(proof, right)
        except ServiceError as error:
            self.note_refusal(error, peer)
            raise

    def find(self, proof: Proof, right: Right) -> Principal:
        """As `authenticate`, but nothing is written down."""
        if right in OPEN_RIGHTS and self.is_open:
            return _ANYONE
        metadata = tuple(_as_metadata(proof))
        secrets = tuple(bearer_secrets(metadata))
        if right is not Right.INFER and any(map(self._is_token, secrets)):
            return _CLUSTER
        found = next(filter(None, map(self._keyring.find, secrets)), None)
        if found is None:
            wanted = _wanted(right, has_keys=not self.is_open)
            raise UnauthenticatedError(f"{wanted}: {why_refused(metadata)}")
        found.check_right(right)
        return found

    def tenant_of(self, caller: Principal | None, named: str) -> str:
        """Whose call it is that names this tenant, or none (""); caller None: a door that did not ask.

        Raises NotAllowedError("tenant"), UnauthenticatedError where nobody was asked and there are keys.
        """
        known = caller or self.find(None, Right.INFER)
        try:
            return known.tenant_of(named)
        except ServiceError as error:
            self.note_refusal(error, f"key {known.key_id}")
            raise

    def note_refusal(self, error: ServiceError, peer: str) -> None:
        """A few a minute only: callers must not fill the audit log."""
        self._refusals.note(str(error), peer)

    def _is_token(self, secret: str) -> bool:
        return is_same_secret(secret, self._token)


def _as_metadata(proof: Proof) -> Metadata:
    if proof is None:
        return ()
    return ((METADATA_KEY, proof),) if isinstance(proof, str) else proof


def _wanted(right: Right, *, has_keys: bool) -> str:
    if right is Right.INFER:
        return "this call needs an API key"
    return "this service needs the cluster token" + (" or an API key" if has_keys else "")
