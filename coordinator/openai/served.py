"""What the HTTP door stands in front of: the coordinator it runs in, or one behind a wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from coordinator.openai.choices import Generate
from coordinator.openai.token_texts import TokenTexts
from coordinator.state import ServedDescription


@dataclass(frozen=True, slots=True)
class Visit:
    """What one caller finds behind the door; good for one HTTP call."""

    description: ServedDescription
    texts: TokenTexts  # of every token that an event has shown log probabilities of
    generate: Generate  # on the caller's behalf


# By the Authorization header (None: there is none) and where the call comes from. Raises
# UnauthenticatedError, NotAllowedError where the key is for other things, UnavailableError where nobody is
# there to ask.
Enter = Callable[[str | None, str], Awaitable[Visit]]

# Whether callers without a key are let in. Raises UnavailableError where nobody is there to ask.
IsOpen = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Served:
    """`enter` before anything of a call is looked at; pages that need no key ask the rest."""

    enter: Enter
    is_ready: Callable[[], bool]
    is_open: IsOpen
    version: str
    stalled_s: float  # a client that neither sends nor reads for so long is dropped
