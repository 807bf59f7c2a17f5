"""What takes time before a sequence is the engine's, and is no work of the engine."""

from __future__ import annotations

import asyncio
import contextlib

from core.grammars import FormatError, Grammars
from core.output_format import OutputFormat
from core.sequence import SequenceSpec
from kv_transfer.sender import PeerAddress
from stage_servers.cache.prefix_service import PrefixService


class Preparation:
    """`prefixes` None: no KV is kept here, so none is fetched."""

    def __init__(self, grammars: Grammars, prefixes: PrefixService | None) -> None:
        self._grammars = grammars
        self._prefixes = prefixes

    def is_needed(self, spec: SequenceSpec, holder: PeerAddress | None) -> bool:
        return spec.format is not None or (holder is not None and self._prefixes is not None)

    async def run(self, spec: SequenceSpec, holder: PeerAddress | None, prefix_tokens: int) -> None:
        """Its format, and so many tokens of its prefix from who has them."""
        if spec.format is not None:
            await self.compile(spec.format)
        if holder is not None and self._prefixes is not None:
            await self._prefixes.fetch(spec, holder, num_tokens=prefix_tokens)

    async def compile(self, form: OutputFormat) -> None:
        """So that the engine finds it compiled; one that is refused, it refuses itself."""
        with contextlib.suppress(FormatError):
            await asyncio.to_thread(self._grammars.matcher, form)
