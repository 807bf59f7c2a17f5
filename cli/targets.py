"""Targets as the command line gives them."""

from __future__ import annotations


def parse_slo(text: str) -> tuple[float, float, float | None]:
    """(TTFT, TPOT, TTFT of requests with media) in seconds, from "2,0.1" or "1,0.1,3"; raises ValueError."""
    try:
        ttft_s, tpot_s, *rest = (float(part) for part in text.split(","))
        (media_ttft_s,) = rest or (None,)
    except ValueError:
        raise ValueError(f"slo: {text!r} is not seconds such as 2,0.1 or 1,0.1,3") from None
    if not all(each is None or each > 0 for each in (ttft_s, tpot_s, media_ttft_s)):
        raise ValueError(f"slo: {text!r} must be above 0")
    return ttft_s, tpot_s, media_ttft_s
