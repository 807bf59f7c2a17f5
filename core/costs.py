"""What a stage's work costs in seconds: pure arithmetic over a profile's coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class StepShape(NamedTuple):
    """What one engine step works on; shapes add up over the sequences of the batch."""

    new_tokens: int = 0
    attended: float = 0.0  # sum of new * (context + new / 2): pairs of tokens that meet in attention
    sequences: int = 0
    context_tokens: int = 0  # sum of tokens whose KV is read

    def plus(self, other: StepShape) -> StepShape:
        return StepShape(
            self.new_tokens + other.new_tokens,
            self.attended + other.attended,
            self.sequences + other.sequences,
            self.context_tokens + other.context_tokens,
        )


EMPTY_SHAPE = StepShape()


def chunk_shape(num_tokens: int, context_tokens: int = 0) -> StepShape:
    """One prefill chunk of a sequence that has KV for `context_tokens` already."""
    return StepShape(num_tokens, num_tokens * (context_tokens + num_tokens / 2), 1, context_tokens)


def decode_shape(num_sequences: int, context_tokens: int) -> StepShape:
    """One decode step of so many sequences with so many tokens of KV in all."""
    return StepShape(num_sequences, float(context_tokens), num_sequences, context_tokens)


@dataclass(frozen=True, slots=True)
class StepTerm:
    """One limit of a step (bytes moved, or arithmetic), linear in the step's shape; seconds."""

    base_s: float = 0.0
    per_new_token_s: float = 0.0
    per_attended_s: float = 0.0
    per_sequence_s: float = 0.0
    per_context_token_s: float = 0.0

    def seconds(self, shape: StepShape) -> float:
        new_tokens, attended, sequences, context_tokens = shape
        return (
            self.base_s
            + self.per_new_token_s * new_tokens
            + self.per_attended_s * attended
            + self.per_sequence_s * sequences
            + self.per_context_token_s * context_tokens
        )

    def scaled(self, factor: float) -> StepTerm:
        return StepTerm(
            self.base_s * factor,
            self.per_new_token_s * factor,
            self.per_attended_s * factor,
            self.per_sequence_s * factor,
            self.per_context_token_s * factor,
        )


@dataclass(frozen=True, slots=True)
class StepCosts:
    """A step takes fixed_s + max(bytes term, FLOP term)."""

    fixed_s: float
    bytes: StepTerm
    flops: StepTerm

    def step_s(self, shape: StepShape) -> float:
        return self.seconds(*shape)

    def seconds(self, new_tokens: int, attended: float, sequences: int, context_tokens: int) -> float:
        """As `step_s`, of a shape's numbers: asked so often that calls count, so both terms stand here."""
        term = self.bytes
        of_bytes = (
            term.base_s
            + term.per_new_token_s * new_tokens
            + term.per_attended_s * attended
            + term.per_sequence_s * sequences
            + term.per_context_token_s * context_tokens
        )
        term = self.flops
        of_flops = (
            term.base_s
            + term.per_new_token_s * new_tokens
            + term.per_attended_s * attended
            + term.per_sequence_s * sequences
            + term.per_context_token_s * context_tokens
        )
        return self.fixed_s + (of_bytes if of_bytes >= of_flops else of_flops)

    def prefill_s(self, num_tokens: int, chunk_tokens: int, context_tokens: int = 0) -> float:
        """A prompt's `num_tokens` alone on the device, in chunks of at most `chunk_tokens`."""
        total, done = 0.0, 0
        while done < num_tokens:
            size, context = min(chunk_tokens, num_tokens - done), context_tokens + done
            total += self.seconds(size, size * (context + size / 2), 1, context)
            done += size
        return total

    def decode_step_s(self, num_sequences: int, context_tokens: int) -> float:
        return self.step_s(decode_shape(num_sequences, context_tokens))

    def tipping_tokens(self, most_tokens: int = 65536) -> int:
        """The least token count of a lone prefill iteration that is bound by arithmetic, at least 1."""
        low, high = 1, most_tokens
        while low < high:
            middle = (low + high) // 2
            shape = chunk_shape(middle)
            if self.flops.seconds(shape) >= self.bytes.seconds(shape):
                high = middle
            else:
                low = middle + 1
        return low


@dataclass(frozen=True, slots=True)
class EncodeCosts:
    """One media item of n tokens takes fixed_s + n * per_token_s + n**2 * per_token2_s on the device.

    Its preprocessing takes per_pixel_s a pixel on a host worker, not on the device.
    """

    fixed_s: float
    per_token_s: float
    per_token2_s: float = 0.0
    per_pixel_s: float = 0.0

    def encode_s(self, num_tokens: int) -> float:
        return self.fixed_s + num_tokens * (self.per_token_s + num_tokens * self.per_token2_s)

    def preprocess_s(self, num_pixels: int) -> float:
        return num_pixels * self.per_pixel_s

    def scaled(self, factor: float) -> EncodeCosts:
        """The device's part; preprocessing stays."""
        return EncodeCosts(
            self.fixed_s * factor, self.per_token_s * factor, self.per_token2_s * factor, self.per_pixel_s
        )


@dataclass(frozen=True, slots=True)
class MoveCosts:
    """Moving bytes between instances takes setup_s + size / bytes_per_s."""

    setup_s: float
    bytes_per_s: float

    def move_s(self, size_bytes: float) -> float:
        return self.setup_s + size_bytes / self.bytes_per_s
