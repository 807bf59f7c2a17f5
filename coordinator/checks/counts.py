"""How many of a kind a request may hold, checked before anything is made of them.

To make records of a million parts takes seconds on the loop that all streams share; so doors ask here first.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.errors import InvalidFieldError

MAX_PIECES = 8192  # messages, parts and tool calls together
MAX_PROMPT_TOKENS = 1 << 20  # of a raw prompt; models take fewer, which is found out later
MAX_VALUES = 300_000  # of JSON, or elements of a tensor
MAX_BIASES = 300
MAX_TOOLS = 128


def check_count(field: str, count: int, most: int) -> None:
    """Raises InvalidFieldError."""
    if count > most:
        raise InvalidFieldError(field, f"{count}, limit {most}")


def check_num_pieces(num_messages: int, nums_inside: Iterable[int]) -> None:
    """`nums_inside`: parts and tool calls of each message. Raises InvalidFieldError("messages")."""
    if num_messages > MAX_PIECES or num_messages + sum(nums_inside) > MAX_PIECES:
        raise InvalidFieldError("messages", f"more than {MAX_PIECES} messages, parts and tool calls")
