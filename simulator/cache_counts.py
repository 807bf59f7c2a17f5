"""What caches spared over a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CacheCounts:
    """Counted up by the run that it is of."""

    encoder_hits: int = 0  # items whose embedding was there, or was being made
    skipped_encodes: int = 0  # items in a cached prefix
    prefix_hit_tokens: int = 0
    pulled_bytes: int = 0  # for that, from other instances
