"""From what a client noted to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.doors.client import Window
from benchmarks.doors.instances import StepTimes
from benchmarks.doors.openings import Admitted
from cli.load.outcomes import quantiles


def stream_figures(window: Window) -> dict[str, Any]:
    """Rates, how many tokens shared a message, and which share of a core each side used."""
    sizes = Counter(window.num_tokens)
    messages, tokens = len(window.num_tokens), sum(window.num_tokens)
    return {
        "messages_per_s": messages / window.seconds,
        "tokens_per_s": tokens / window.seconds,
        "tokens_per_message": tokens / messages if messages else 0.0,
        "most_tokens_per_message": max(sizes, default=0),
        "tokens_in_messages_of_8_at_most": sum(n * c for n, c in sizes.items() if n <= 8) / max(1, tokens),
        "server_cpu_share": window.server_cpu_s / window.seconds,
        "client_cpu_share": window.client_cpu_s / window.seconds,
        "front_cpu_share": window.front_cpu_s / window.seconds,
    }


def added_ms(window: Window, request_ids: Sequence[str], times: Sequence[StepTimes]) -> dict[str, float]:
    """Mean and percentiles of the time from an instance's step to the client, of every token."""
    begun = {name: (each.steps, first) for each in times for name, first in each.begun.items()}
    values: list[float] = []
    for stream, first_index, count, at_s in zip(
        window.streams, window.first_index, window.num_tokens, window.at_s, strict=True
    ):
        steps, first_step = begun[request_ids[stream]]
        first_token = first_step + first_index
        values += [(at_s - left_s) * 1e3 for left_s in steps[first_token : first_token + count]]
    return quantiles(values)


def admission_figures(admitted: Admitted) -> dict[str, Any]:
    count = max(1, len(admitted.accepted_s))
    return {
        "requests_per_s": admitted.finished / admitted.seconds,
        "refused": admitted.refused,
        "prompt_tokens_mean": admitted.prompt_tokens / count,
        "accepted_ms": quantiles([each * 1e3 for each in admitted.accepted_s]),
        "server_cpu_share": admitted.server_cpu_s / admitted.seconds,
        "client_cpu_share": admitted.client_cpu_s / admitted.seconds,
    }
