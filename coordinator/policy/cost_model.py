"""What work will cost on an instance: the profile's costs, corrected by what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.policy.correction import Correction, is_close
from core.costs import StepCosts, StepShape, chunk_shape
from core.profile import Profile

_CONTEXT_OF_KNEE = 1024  # tokens a sequence, where the caller knows no better


class CostModel:
    """Predictions in seconds for one kind of instance; monotone in every count, whatever was measured."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.version = 0  # goes up with every correction, for what callers remember of predictions
        self._step = Correction(3)  # fixed, bytes, FLOP
        self._encode = Correction(1)
        self._kv_move = Correction(1)
        self._embedding_move = Correction(1)
        self._corrected: StepCosts | None = profile.step
        self._tipping: int | None = None
        self._knees: dict[tuple[int, float], int] = {}

    # predictions

    @property
    def step_costs(self) -> StepCosts:
        if self._corrected is None:
            step, (fixed, of_bytes, of_flops) = self.profile.step, self._step.factors
            self._corrected = StepCosts(
                step.fixed_s * fixed, step.bytes.scaled(of_bytes), step.flops.scaled(of_flops)
            )
        return self._corrected

    def step_s(self, shape: StepShape) -> float:
        return self.step_costs.step_s(shape)

    def prefill_s(self, num_tokens: int, context_tokens: int = 0) -> float:
        """So many tokens alone on the device, in chunks, where KV for `context_tokens` is there already."""
        return self.step_costs.prefill_s(num_tokens, self.profile.chunk_tokens, context_tokens)

    def prompt_s(self, text_tokens: int, media_tokens: int = 0, cached_tokens: int = 0) -> float:
        """A prompt's prefill, media counted as the model takes it in."""
        new = self.profile.new_tokens(text_tokens, media_tokens) - cached_tokens
        return self.prefill_s(new, self.profile.side_tokens(media_tokens) + cached_tokens)

    def batch_prefill_s(self, token_counts: Iterable[int]) -> float:
        """Whole prompts packed into one iteration."""
        shape = StepShape()
        for count in token_counts:
            shape = shape.plus(chunk_shape(count))
        return self.step_s(shape)

    def decode_step_s(self, num_sequences: int, context_tokens: int) -> float:
        return self.step_costs.seconds(num_sequences, float(context_tokens), num_sequences, context_tokens)

    def decode_work_s(self, num_outputs: float, context_tokens: int) -> float:
        """Instance-seconds of a request's decode, as its share of a batch at the knee."""
        knee = self.decode_knee(context_tokens)
        return num_outputs * self.decode_step_s(knee, knee * context_tokens) / knee

    def encode_s(self, num_tokens: int) -> float:
        return self.profile.encode.encode_s(num_tokens) * self._encode.factors[0]

    def preprocess_s(self, num_pixels: int) -> float:
        return self.profile.encode.preprocess_s(num_pixels)

    def kv_move_s(self, num_tokens: int) -> float:
        """The KV of one sequence to another instance."""
        size = num_tokens * self.profile.kv_bytes_per_token
        return self.profile.kv_move.move_s(size) * self._kv_move.factors[0]

    def embedding_move_s(self, num_tokens: int) -> float:
        size = num_tokens * self.profile.embedding_bytes_per_token
        return self.profile.embedding_move.move_s(size) * self._embedding_move.factors[0]

    def tipping_tokens(self) -> int:
        """The token count at which a prefill iteration turns from memory-bound to compute-bound."""
        if self._tipping is None:
            self._tipping = self.step_costs.tipping_tokens()
        return self._tipping

    def decode_knee(self, context_per_sequence: int = _CONTEXT_OF_KNEE, least_saving: float = 0.25) -> int:
        """The batch from which on doubling it saves less than `least_saving` of the time a sequence costs.

        At most the profile's max_sequences.
        """
        rounded = 1 << max(0, context_per_sequence - 1).bit_length()  # so that few are kept
        key = rounded, least_saving
        knee = self._knees.get(key)
        if knee is None:
            knee = self._knees[key] = self._find_knee(rounded, least_saving)
        return knee

    # measurements

    def note_step(self, shape: StepShape, seconds: float) -> None:
        predicted_s = self.step_costs.seconds(*shape)
        if predicted_s > 0 and is_close(seconds, predicted_s):
            return  # as in a simulation, where hardly anything is left to learn
        parts = self.profile.step
        of_bytes, of_flops = parts.bytes.seconds(shape), parts.flops.seconds(shape)
        _, bytes_factor, flops_factor = self._step.factors
        is_bytes = of_bytes * bytes_factor >= of_flops * flops_factor
        shown = parts.fixed_s, of_bytes if is_bytes else 0.0, 0.0 if is_bytes else of_flops
        if self._step.note(shown, seconds):
            self._corrected = self._tipping = None
            self._knees.clear()
            self.version += 1

    def note_encode(self, num_tokens: int, seconds: float) -> None:
        self.version += self._encode.note((self.profile.encode.encode_s(num_tokens),), seconds)

    def note_kv_move(self, num_tokens: int, seconds: float) -> None:
        size = num_tokens * self.profile.kv_bytes_per_token
        self.version += self._kv_move.note((self.profile.kv_move.move_s(size),), seconds)

    def note_embedding_move(self, num_tokens: int, seconds: float) -> None:
        size = num_tokens * self.profile.embedding_bytes_per_token
        self.version += self._embedding_move.note((self.profile.embedding_move.move_s(size),), seconds)

    @property
    def factors(self) -> dict[str, float]:
        """By how much measured times differ from the profile's, by term; for status and decisions."""
        fixed, of_bytes, of_flops = self._step.factors
        return {
            "fixed": fixed,
            "bytes": of_bytes,
            "flops": of_flops,
            "encode": self._encode.factors[0],
            "kv_move": self._kv_move.factors[0],
            "embedding_move": self._embedding_move.factors[0],
        }

    def _find_knee(self, context_per_sequence: int, least_saving: float) -> int:
        costs = self.step_costs

        def each_s(batch: int) -> float:
            return costs.decode_step_s(batch, batch * context_per_sequence) / batch

        low, high = 1, self.profile.max_sequences
        while low < high:
            middle = (low + high) // 2
            if each_s(2 * middle) > (1 - least_saving) * each_s(middle):
                high = middle
            else:
                low = middle + 1
        return low
