"""What takes time before a sequence is the engine's, and is no work of the engine."""

from __future__ import annotations

from collections.abc import Callable

from core.format_turns import FormatTurns
from core.grammars import FormatError, Grammars, Matcher
from core.sequence import SequenceSpec
from kv_transfer.sender import PeerAddress
from stage_servers.cache.prefix_service import PrefixService


class Preparation:
    """`prefixes` None: no KV is kept here, so none is fetched."""

    def __init__(self, grammars: Grammars, prefixes: PrefixService | None) -> None:
        self._formats = FormatTurns(grammars)
        self._prefixes = prefixes

    def is_needed(self, spec: SequenceSpec, holder: PeerAddress | None) -> bool:
        return spec.format is not None or (holder is not None and self._prefixes is not None)

    async def run(
        self,
        spec: SequenceSpec,
        holder: PeerAddress | None,
        prefix_tokens: int,
        begin: Callable[[Matcher | None], None],
    ) -> None:
        """Its format, and so many tokens of its prefix from who has them; then it begins."""
        matcher = await self.matcher(spec)
        if holder is not None and self._prefixes is not None:
            await self._prefixes.fetch(spec, holder, num_tokens=prefix_tokens)
        begin(matcher)

    async def matcher(self, spec: SequenceSpec) -> Matcher | None:
        """So that the engine need not compile; None: no format, or one that the engine will refuse itself."""
        if spec.format is None:
            return None
        try:
            return (await self._formats.compile(spec.tenant, spec.format)).begin()
        except FormatError:
            return None

    async def compile(self, spec: SequenceSpec) -> None:
        """Its format only, for when it is wanted."""
        await self.matcher(spec)
