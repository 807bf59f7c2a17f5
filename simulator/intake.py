"""Requests of a workload as work that policies see."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from coordinator.policy.expectation import OutputExpectation
from coordinator.policy.view import EMBEDDING_BLOCK_TOKENS
from coordinator.policy.work import MediaWork, Work
from core.profile import Profile
from simulator.workload.request import Picture, Request


class Intake:
    """Counts tokens and predicts device times from the profile, as the coordinator does on arrival."""

    def __init__(
        self, profile: Profile, expectation: OutputExpectation, *, locates_media: bool = False
    ) -> None:
        """With `locates_media` it says where in the prompt the pictures end, for caches."""
        self._profile = profile
        self._locates_media = locates_media
        self._expectation = expectation
        self._media_known: dict[tuple[int, int, int | None], MediaWork] = {}  # by size: sizes repeat
        self._pool_tokens = profile.kv_tokens // profile.block_tokens * profile.block_tokens
        self._embedding_blocks = embedding_blocks_of(profile)

    def work(self, request: Request) -> Work:
        profile, pictures = self._profile, request.pictures
        media = tuple(map(self._media, pictures)) if pictures else ()
        media_tokens = _num_tokens(media) if media else 0
        if media and self._locates_media:
            media = _located(media)
        return Work(
            request_id=request.request_id,
            arrival_s=request.arrival_s,
            prompt_tokens=profile.context_tokens(request.text_tokens, media_tokens),
            reserve_tokens=self._expectation.expected_tokens(request.max_tokens),
            prefill_s=profile.prefill_s(request.text_tokens, media_tokens),
            media=media,
        )

    def side_tokens(self, work: Work) -> int:
        """Of the prompt's tokens, those that lie beside the sequence and are not computed."""
        return self._profile.side_tokens(_num_tokens(work.media)) if work.media else 0

    def fits(self, request: Request, work: Work) -> bool:
        """Whether an idle instance could hold it, with its answer and with what is reserved for that."""
        answer_tokens = max(request.output_tokens, work.reserve_tokens)
        fits_pool = work.prompt_tokens + answer_tokens <= self._pool_tokens
        return fits_pool and work.embedding_blocks <= self._embedding_blocks

    def ended(self, num_outputs: int) -> None:
        self._expectation.record(num_outputs)

    def _media(self, picture: Picture) -> MediaWork:
        key = picture.width_px, picture.height_px, picture.num_tokens
        known = self._media_known.get(key)
        if known is None:
            num_tokens = picture.num_tokens or self._profile.media.media_tokens(*key[:2])
            encode_s = self._profile.encode.encode_s(num_tokens)
            known = self._media_known[key] = MediaWork(num_tokens, picture.pixels, encode_s)
        return known


def _num_tokens(media: tuple[MediaWork, ...]) -> int:
    return sum([item.num_tokens for item in media])


def _located(media: tuple[MediaWork, ...]) -> tuple[MediaWork, ...]:
    """Pictures come first in the prompt."""
    ends = accumulate(item.num_tokens for item in media)
    return tuple(replace(item, end_token=end) for item, end in zip(media, ends, strict=True))


def embedding_blocks_of(profile: Profile) -> int:
    return profile.embedding_tokens // EMBEDDING_BLOCK_TOKENS
