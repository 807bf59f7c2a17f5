"""The model served here, as far as a process without torch needs to know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.families import MediaLayout, load_family
from core.sequence import MediaSpan


class ModelFamily(Protocol):
    """What `core.families.load_family` gives; see there."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_token_ids(self) -> frozenset[int]: ...
    @property
    def media_token_ids(self) -> frozenset[int]: ...

    def layout(self, width: int, height: int, max_pixels: int | None = None) -> MediaLayout: ...

    def expand_placeholders(
        self, token_ids: Sequence[int], items: Sequence[tuple[bytes, MediaLayout]]
    ) -> tuple[tuple[int, ...], tuple[MediaSpan, ...]]: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    name: str
    path: Path
    family: ModelFamily

    @property
    def context_tokens(self) -> int:
        return self.family.context_tokens


def load_model(path: Path, name: str) -> ServedModel:
    """Raises ValueError naming what the folder lacks."""
    return ServedModel(name=name, path=path, family=load_family(path))
