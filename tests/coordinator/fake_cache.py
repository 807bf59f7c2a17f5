"""A fake stage's cache: the keys that a stage server computes for itself, without what they stand for."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from core.cache.chain import MediaRange, block_keys, extend_chain
from core.cache.keys import chain_start, embedding_key
from elasticmm.v1 import stage_control_pb2 as pb


class FakeCache:
    """Keeps all that it is given until a test takes it away; `forget` says so, `lose` does not."""

    def __init__(self, fingerprint: str, block_tokens: int) -> None:
        self.fingerprint = fingerprint
        self.block_tokens = block_tokens
        self.keys: set[bytes] = set()

    def block_keys(self, sequence: pb.Sequence) -> list[bytes]:
        """Of the prompt's whole blocks."""
        packed = sequence.prompt_token_ids
        tokens = struct.unpack(f"<{len(packed) // 4}I", packed)
        ranges = [MediaRange(each.first_token, each.num_tokens, each.identity) for each in sequence.media]
        start = chain_start(self.fingerprint, sequence.cache.salt)
        return block_keys(extend_chain(start, tokens, ranges), self.block_tokens)

    def prefix_tokens(self, sequence: pb.Sequence) -> int:
        """Leading tokens that are here, the last of the prompt left out."""
        found = 0
        for key in self.block_keys(sequence) if sequence.HasField("cache") else ():
            if key not in self.keys:
                break
            found += self.block_tokens
        return min(found, len(sequence.prompt_token_ids) // 4 - 1)

    def embedding_key(self, command: pb.EncodeCommand) -> bytes:
        return embedding_key(self.fingerprint, command.cache.salt, command.span.identity)

    def keep(self, keys: Iterable[bytes]) -> pb.StageMessage:
        stored = set(keys) - self.keys
        self.keys |= stored
        return pb.StageMessage(cache=pb.CacheReport(stored=b"".join(stored)))

    def forget(self) -> pb.StageMessage:
        evicted, self.keys = self.keys, set()
        return pb.StageMessage(cache=pb.CacheReport(evicted=b"".join(evicted)))

    def lose(self) -> None:
        self.keys = set()
