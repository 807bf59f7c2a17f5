"""What two recorded services asked for: chains of blocks, and pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.caching.replay import Ask, Item
from core.costs import chunk_shape
from core.profile import Profile
from simulator.workload import servegen

BLOCK_TOKENS = 512
_MAX_TOKENS = 2048
_RECENT_USES = 1024  # of a client, that a repeat may be of


def block_seconds(profile: Profile, block: int) -> float:
    """What a prompt's block adds to its prefill: arithmetic alone, weights are read anyway."""
    flops = profile.step.flops
    return flops.seconds(chunk_shape(BLOCK_TOKENS, block * BLOCK_TOKENS)) - flops.base_s


def conversations(path: Path, profile: Profile) -> list[Ask]:
    """The prompts of a Mooncake trace, in blocks, the last one perhaps not full, as the trace counts them."""
    asks: list[Ask] = []
    size_bytes = BLOCK_TOKENS * profile.kv_bytes_per_token
    seconds: list[float] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            hashes = entry["hash_ids"]
            seconds += [block_seconds(profile, block) for block in range(len(seconds), len(hashes))]
            items = tuple(
                Item(number.to_bytes(32, "big"), size_bytes, seconds[block])
                for block, number in enumerate(hashes)
            )
            asks.append(Ask(entry["timestamp"] / 1000, items, is_chain=True))
    return asks


def pictures(
    folder: Path, profile: Profile, *, start_s: float, duration_s: float, repeat_share: float, seed: int
) -> list[Ask]:
    """Image requests of ServeGen's clients: when, how many, and of how many tokens is recorded, which are
    the same is not. Here each is, with `repeat_share`, the picture of one of its client's last uses at
    random: so what was used often lately is likely to be used again.
    """
    rng = np.random.default_rng(seed)
    recent: defaultdict[str, list[Item]] = defaultdict(list)
    asks: list[Ask] = []
    num_pictures = 0
    for request in servegen.load(folder, (), start_s, duration_s, max_tokens=_MAX_TOKENS, seed=seed):
        uses = recent[request.request_id.partition("-")[0]]
        items: list[Item] = []
        for picture in request.pictures:
            if uses and rng.random() < repeat_share:
                items.append(uses[int(rng.integers(len(uses)))])
            else:
                num_pictures += 1
                items.append(_picture(num_pictures, picture.num_tokens or 0, profile))
            uses.append(items[-1])
            del uses[:-_RECENT_USES]
        if items:
            asks.append(Ask(request.arrival_s, tuple(items), is_chain=False))
    return asks


def _picture(number: int, num_tokens: int, profile: Profile) -> Item:
    return Item(
        number.to_bytes(32, "big"),
        num_tokens * profile.embedding_bytes_per_token,
        profile.encode.encode_s(num_tokens),
    )
