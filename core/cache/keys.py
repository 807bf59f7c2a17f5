"""What embeddings and chains are known by: full 32-byte BLAKE2b digests of all that decides their content."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from core.cache.encoding import Plain, encoded

DIGEST_BYTES = 32

# BLAKE2's personalization: digests made for one purpose are never equal to those made for another.
_MEDIA = b"elasticmm media"
_EMBEDDING = b"elasticmm embed"
_CHAIN = b"elasticmm chain"


def media_identity(content_digest: bytes, settings: Mapping[str, Plain]) -> bytes:
    """A media item as the model will see it: the digest of its bytes, and every processor setting that
    changes its pixels or how many tokens it takes.
    """
    return digest_of(_MEDIA, content_digest, settings)


def embedding_key(model_fingerprint: str, salt: bytes, identity: bytes) -> bytes:
    """Of the embedding that this model makes of a media item, within the tenants who share the salt."""
    return digest_of(_EMBEDDING, model_fingerprint, salt, identity)


def chain_start(model_fingerprint: str, salt: bytes) -> bytes:
    """The digest before the first granule; see `core.cache.chain`."""
    return digest_of(_CHAIN, model_fingerprint, salt)


def digest_of(purpose: bytes, *parts: Plain) -> bytes:
    """32 bytes of all parts; `purpose`, of at most 16 bytes, keeps digests of different kinds apart."""
    return blake2b(encoded(parts), digest_size=DIGEST_BYTES, person=purpose).digest()
