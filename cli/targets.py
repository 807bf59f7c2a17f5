"""Targets as the command line gives them."""

from __future__ import annotations


def parse_slo(text: str) -> tuple[float, float]:
    """(TTFT, TPOT) in seconds from "2,0.1"; raises ValueError."""
    parts = text.split(",")
    try:
        ttft_s, tpot_s = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"slo: {text!r} is not two numbers of seconds such as 2,0.1") from None
    if not (ttft_s > 0 and tpot_s > 0):
        raise ValueError(f"slo: {text!r} must be above 0")
    return ttft_s, tpot_s
