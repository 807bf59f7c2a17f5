"""Steps that take a profile's time, with tokens by a seeded function and KV that can be checked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Seq

import numpy as np
import torch

from core.costs import StepCosts, StepShape, chunk_shape
from stage_servers.emulation.device import EmulatedDevice
from stage_servers.engine.batching import Chunk, Selection
from stage_servers.engine.records import EngineListener, Key, WrittenChunk
from stage_servers.engine.sequence import Sequence


class WrongKv(RuntimeError):
    """The pool does not hold what was written for a sequence; a bug of whoever moved it."""


class EmulatedRunner:
    """Implements StepRunner.

    The KV of token i is marked with the token and its place in every plane. What precedes a chunk is checked:
    its last token, or all of it where the sequence was not in the step before. So blocks that were mixed
    up, or never came, do not pass.
    """

    def __init__(
        self,
        costs: StepCosts,
        device: EmulatedDevice,
        pool: torch.Tensor,
        block_tokens: int,
        listener: EngineListener | None,
        *,
        vocab_size: int,
        usable: Seq[int],
    ) -> None:
        self._costs = costs
        self._device = device
        self._pool = pool.numpy()  # [planes, blocks, block_tokens, elements]
        self._block_tokens = block_tokens
        self._listener = listener
        self._vocab_size = vocab_size
        self._usable = usable
        self._known: dict[Key, int] = {}  # of the step before, with their prompts' checksums

    def prepare(self, max_sequences: int, max_batch_tokens: int) -> None:
        """There is nothing to compile."""

    def run(self, selection: Selection) -> torch.Tensor:
        chunks = selection.chunks
        going_on = [chunk for chunk in selection.decodes if chunk.sequence.key in self._known]
        self._check_last(going_on)
        self._mark_last(going_on)
        others = [chunk for chunk in selection.decodes if chunk.sequence.key not in self._known]
        for chunk in (*others, *selection.prefills):
            self._check(chunk)
            self._mark(chunk)
        self._known = {chunk.sequence.key: self._prompt_mark(chunk.sequence) for chunk in chunks}
        self._work(selection)
        ending = [chunk for chunk in chunks if chunk.is_last]
        logits = torch.zeros(len(ending), self._vocab_size)
        for row, chunk in enumerate(ending):
            logits[row, self._next_token(chunk.sequence)] = 1.0
        return logits

    def _work(self, selection: Selection) -> None:
        """The step's time, in as many parts as there are layers whose KV may leave."""
        shape = StepShape()
        for chunk in selection.chunks:
            shape = shape.plus(chunk_shape(chunk.num_tokens, chunk.first_token))
        seconds = self._costs.step_s(shape)
        leaving = tuple(
            WrittenChunk(chunk.sequence.key, chunk.first_token, chunk.num_tokens)
            for chunk in selection.prefills
            if chunk.sequence.hand_over
        )
        if self._listener is None or not leaving:
            self._device.work(seconds)
            return
        num_layers = len(self._pool) // 2
        for layer in range(num_layers):
            self._device.work(seconds / num_layers)
            self._listener.on_layers_written(range(layer, layer + 1), leaving)

    def _next_token(self, sequence: Sequence) -> int:
        """A function of seed, prompt and index alone: wherever the sequence goes on, so do its tokens."""
        seed, prompt = sequence.spec.sampling.seed, self._known[sequence.key]
        parts = np.array([seed & (2**64 - 1), prompt, sequence.num_outputs], dtype=np.uint64)
        return self._usable[zlib.crc32(parts.tobytes()) % len(self._usable)]

    def _prompt_mark(self, sequence: Sequence) -> int:
        """Made once: a prompt may be long, and batches are large."""
        known = self._known.get(sequence.key)
        if known is not None:
            return known
        return zlib.crc32(np.array(sequence.spec.prompt, dtype=np.uint32).tobytes())

    def _check_last(self, decodes: Seq[Chunk]) -> None:
        """Of each the token before, at once for all: batches are large."""
        if not decodes:
            return
        blocks, offsets, marks = self._single(decodes, 1)
        found = self._pool[:, blocks, offsets, :2]
        if not (found == marks).all():
            wrong = (found != marks).any(axis=(0, 2)).argmax()
            raise WrongKv(f"{decodes[wrong].sequence.key}: KV of its last token is not what was written")

    def _mark_last(self, decodes: Seq[Chunk]) -> None:
        if decodes:
            blocks, offsets, marks = self._single(decodes, 0)
            self._pool[:, blocks, offsets, :2] = marks

    def _single(self, decodes: Seq[Chunk], back: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blocks, offsets and marks ([decodes, 2]) of a token each, `back` before the one that is to run."""
        singles = [(chunk.sequence, chunk.first_token - back) for chunk in decodes]
        blocks = np.array([sequence.blocks[token // self._block_tokens] for sequence, token in singles])
        offsets = np.array([token % self._block_tokens for _, token in singles])
        marks = np.array([(sequence.tokens[token], token) for sequence, token in singles], dtype=np.float32)
        return blocks, offsets, marks

    def _mark(self, chunk: Chunk) -> None:
        blocks, offsets = self._places(chunk.sequence, chunk.first_token, chunk.end_token)
        marks = _marks(chunk.sequence, chunk.first_token, chunk.end_token)
        self._pool[:, blocks, offsets, :2] = marks

    def _check(self, chunk: Chunk) -> None:
        first = chunk.first_token
        if first == 0:
            return
        since = first - 1 if chunk.sequence.key in self._known else 0
        blocks, offsets = self._places(chunk.sequence, since, first)
        found = self._pool[:, blocks, offsets, :2]
        if not (found == _marks(chunk.sequence, since, first)).all():
            raise WrongKv(f"{chunk.sequence.key}: KV of tokens {since} to {first} is not what was written")

    def _places(self, sequence: Sequence, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.arange(first, end)
        first_block = first // self._block_tokens
        blocks = np.array(sequence.blocks[first_block : (end - 1) // self._block_tokens + 1])
        return blocks[tokens // self._block_tokens - first_block], tokens % self._block_tokens


def _marks(sequence: Sequence, first: int, end: int) -> np.ndarray:
    """[tokens, 2]: the token and its place."""
    return np.stack([np.array(sequence.tokens[first:end]), np.arange(first, end)], axis=1).astype(np.float32)
