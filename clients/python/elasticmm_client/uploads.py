"""Which pictures this client has uploaded, and how bytes are cut for the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client.messages import ImageBytes

CHUNK_BYTES = 1 << 20
_MAX_REMEMBERED = 4096


class UploadCache:
    """Digests the gateway still keeps for each tenant: those used within half its time to live."""

    def __init__(self) -> None:
        self._used_at_s: dict[tuple[str, bytes], float] = {}

    def missing(
        self, pictures: Iterable[ImageBytes], tenant: str, now_s: float, ttl_s: float
    ) -> list[ImageBytes]:
        """Pictures to upload, each once."""
        oldest_s = now_s - ttl_s / 2
        by_digest = {digest_of(picture.data): picture for picture in pictures}
        return [
            picture
            for digest, picture in by_digest.items()
            if self._used_at_s.get((tenant, digest), float("-inf")) <= oldest_s
        ]

    def use(self, pictures: Iterable[ImageBytes], tenant: str, now_s: float) -> dict[bytes, bytes]:
        """All of them are uploaded and used now; returns digests by bytes."""
        digests = {picture.data: digest_of(picture.data) for picture in pictures}
        for digest in digests.values():
            self._used_at_s.pop((tenant, digest), None)
            self._used_at_s[tenant, digest] = now_s
        while len(self._used_at_s) > _MAX_REMEMBERED:
            del self._used_at_s[next(iter(self._used_at_s))]
        return digests

    def forget(self, pictures: Iterable[ImageBytes], tenant: str) -> None:
        """The gateway lost them."""
        for picture in pictures:
            self._used_at_s.pop((tenant, digest_of(picture.data)), None)


def digest_of(data: bytes) -> bytes:
    """SHA-256, the name under which the gateway keeps the bytes."""
    return hashlib.sha256(data).digest()


def upload_requests(data: bytes, tenant: str) -> Iterator[pb.UploadRequest]:
    """At least one message, each of at most 1 MiB; the first says whose it is."""
    for start in range(0, max(len(data), 1), CHUNK_BYTES):
        yield pb.UploadRequest(data=data[start : start + CHUNK_BYTES], tenant="" if start else tenant)
