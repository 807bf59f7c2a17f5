"""The parts of a request by which caches know it: its pictures, and the stretches of its sequence."""

from __future__ import annotations

import hashlib
from itertools import accumulate

from coordinator.policy.work import Work
from core.profile import Profile
from simulator.kept import Granule
from simulator.workload.request import Request

_GRANULE_TOKENS = 16  # the cluster's constant


def picture_key(digest: int) -> bytes:
    return _hashed(b"picture", digest)


def prompt_chain(request: Request, work: Work, profile: Profile) -> list[Granule]:
    """Of a request with hashes of its prompt these, else of its pictures, which stand first: no two have the
    same text. A picture is one stretch, up to its last whole granule of the cluster.

    Models that take pictures in beside the sequence have none: what their layers make of text depends on
    pictures everywhere.
    """
    if request.prefix:
        return _of_hashes(request.prefix, request.prefix_granule_tokens, 0)
    return [] if profile.is_simulation_only else _of_pictures(request, work)


def whole_chain(request: Request, work: Work, profile: Profile) -> list[Granule]:
    """With what the answer makes of it."""
    chain = prompt_chain(request, work, profile)
    return chain + _of_hashes(request.made, request.prefix_granule_tokens, len(request.prefix))


def _of_hashes(hashes: tuple[int, ...], num_tokens: int, num_before: int) -> list[Granule]:
    """Each of them names all before it, too."""
    return [
        Granule(_hashed(b"granule", each), num_tokens, number * num_tokens)
        for number, each in enumerate(hashes, num_before + 1)
    ]


def _of_pictures(request: Request, work: Work) -> list[Granule]:
    chain: list[Granule] = []
    key, end_before = b"", 0
    ends = accumulate(item.num_tokens for item in work.media)
    for picture, end in zip(request.pictures, ends, strict=True):
        if picture.digest is None:
            break
        key = _hashed(key, picture.digest)
        whole = end // _GRANULE_TOKENS * _GRANULE_TOKENS
        if whole > end_before:
            chain.append(Granule(key, whole - end_before, whole))
            end_before = whole
    return chain


def _hashed(before: bytes, number: int) -> bytes:
    return hashlib.blake2b(before + number.to_bytes(16, "little"), digest_size=32).digest()
