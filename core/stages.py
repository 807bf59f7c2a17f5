"""The three stages, the role sets made of them, and the modality groups."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Stage(Enum):
    """One part of a request's work; the value is its letter in topology names."""

    ENCODE = "e"
    PREFILL = "p"
    DECODE = "d"

    # Members are singletons: the hash of their identity, in place of Enum's own, which is a call of Python at
    # every look-up in a dict or a set of roles.
    __hash__ = object.__hash__


class ModalityGroup(Enum):
    """Which traffic an instance serves."""

    TEXT = "text"
    MULTIMODAL = "multimodal"
    SHARED = "shared"

    __hash__ = object.__hash__  # as of Stage


Roles = frozenset[Stage]

COUPLED: Roles = frozenset(Stage)


def roles_name(roles: Iterable[Stage]) -> str:
    """The role set as letters in stage order: "epd", "pd", "e"."""
    present = set(roles)
    return "".join(stage.value for stage in Stage if stage in present)


def parse_roles(name: str) -> Roles:
    """The role set named by letters or stage names: "epd", "e,p", "prefill".

    Raises ValueError naming what is not a role, or if there is none.
    """
    by_name = {stage.name.lower(): stage for stage in Stage}
    by_name |= {stage.value: stage for stage in Stage}
    words = [word.strip().lower() for word in name.split(",") if word.strip()]
    if len(words) == 1 and words[0] not in by_name:
        words = list(words[0])
    unknown = [word for word in words if word not in by_name]
    if unknown or not words:
        raise ValueError(f"roles: {name!r} names no roles (use letters of 'epd')")
    return frozenset(by_name[word] for word in words)
