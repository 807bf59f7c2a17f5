"""What the HTTP door stands in front of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.access.principal import Principal
from coordinator.openai.choices import Generate
from coordinator.openai.token_texts import TokenTexts
from coordinator.state import ServedDescription


@dataclass(frozen=True, slots=True)
class Served:
    generate: Generate
    describe: Callable[[], ServedDescription]
    is_ready: Callable[[], bool]
    texts: TokenTexts
    version: str
    authenticate: Callable[[str | None, str], Principal]  # by the Authorization header; who calls from where
    stalled_s: float  # a client that neither sends nor reads for so long is dropped
