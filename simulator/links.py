"""When bytes arrive: each instance sends and receives one thing after the other."""

from __future__ import annotations

from core.profile import Profile
from simulator.instance import Instance

# Of a typical model. KV leaves after each layer, so that a layer's share of a chunk is sent when it ends.
LAYERS = 32


class Links:
    """Transfers between instances at the profile's speed; a setting up takes time but no bandwidth."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.num_transfers = 0

    def embedding_s(self, source: Instance, target: Instance, now_s: float, num_tokens: int) -> float:
        """When an embedding is there."""
        costs = self._profile.embedding_move
        size_s = num_tokens * self._profile.embedding_bytes_per_token / costs.bytes_per_s
        return self._send(source, target, now_s, size_s, now_s) + costs.setup_s

    def kv_s(self, source: Instance, target: Instance, now_s: float, num_tokens: int) -> float:
        """When KV that lies ready is there."""
        return (
            self._send(source, target, now_s, self._kv_s(num_tokens), now_s) + self._profile.kv_move.setup_s
        )

    def layered_kv_s(
        self, source: Instance, target: Instance, start_s: float, now_s: float, num_tokens: int
    ) -> float:
        """When KV is there that a step from `start_s` to now made layer by layer."""
        size_s = self._kv_s(num_tokens)
        first_s = start_s + (now_s - start_s) / LAYERS
        tail_s = now_s + size_s / LAYERS
        return self._send(source, target, first_s, size_s, tail_s) + self._profile.kv_move.setup_s

    def _kv_s(self, num_tokens: int) -> float:
        return num_tokens * self._profile.kv_bytes_per_token / self._profile.kv_move.bytes_per_s

    def _send(
        self, source: Instance, target: Instance, first_s: float, size_s: float, least_end_s: float
    ) -> float:
        """The end of a transfer that starts at `first_s` at the earliest and ends at `least_end_s` then."""
        self.num_transfers += 1
        end_s = max(first_s, source.out_free_s, target.in_free_s) + size_s
        end_s = max(end_s, least_end_s)
        source.out_free_s = target.in_free_s = end_s
        return end_s
