"""What the coordinator and the engine both need to know of a served model, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.cache.encoding import Plain
from core.cache.keys import media_identity
from core.families.media import MediaLayout, PatchLayout
from core.sequence import MediaSpan

_MADE_SMALLER = "elasticmm: made smaller to"  # no processor has a setting of this name


@dataclass(frozen=True, slots=True)
class Family:
    """One model of a known architecture; made by `load_family`."""

    architecture: str  # architectures[0] of config.json
    fingerprint: str  # SHA-256 in hex of the folder, see core.families.folder
    context_tokens: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    placeholder_token_id: (
        int  # stands for a picture: once in the template's output, num_tokens times in a prompt
    )
    media_token_ids: frozenset[
        int
    ]  # every token that stands for or frames media; none may come from a user's text
    patches: PatchLayout
    media_settings: Mapping[str, Plain]  # of the processor: all that it does to an item

    def layout(self, width: int, height: int, max_pixels: int | None = None) -> MediaLayout:
        """The grid and token count of a picture of this size, of which at most `max_pixels` are to be read.

        Raises ValueError if it is refused.
        """
        return self.patches.of(width, height, max_pixels)

    def expand_placeholders(
        self, token_ids: Sequence[int], items: Sequence[tuple[bytes, MediaLayout]]
    ) -> tuple[tuple[int, ...], tuple[MediaSpan, ...]]:
        """The prompt with each picture's placeholder repeated, and where each picture lies.

        `items` are (digest, layout) in order of their placeholders. Raises
        ValueError if there are more or fewer placeholders than items.
        """
        found = token_ids.count(self.placeholder_token_id)
        if found != len(items):
            raise ValueError(f"the prompt has {found} media placeholders for {len(items)} media items")
        if not items:
            return tuple(token_ids), ()
        prompt: list[int] = []
        spans: list[MediaSpan] = []
        for token in token_ids:
            if token != self.placeholder_token_id:
                prompt.append(token)
                continue
            digest, layout = items[len(spans)]
            spans.append(self._span(len(spans), len(prompt), digest, layout))
            prompt.extend([token] * layout.num_tokens)
        return tuple(prompt), tuple(spans)

    def _span(self, index: int, first_token: int, digest: bytes, layout: MediaLayout) -> MediaSpan:
        """Bounds that come to the same size make the same picture, which is known by one identity."""
        settings = self.media_settings
        if layout.max_pixels is not None:
            settings = {**settings, _MADE_SMALLER: layout.grid}
        return MediaSpan(
            item_index=index,
            first_token=first_token,
            num_tokens=layout.num_tokens,
            grid=layout.grid,
            digest=digest,
            identity=media_identity(digest, settings),
            max_pixels=layout.max_pixels,
        )
