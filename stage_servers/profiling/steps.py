"""Measures engine steps: prefill chunks over growing context, decode batches, and both at once."""

from __future__ import annotations

import statistics
from collections import defaultdict

from core.costs import StepShape, chunk_shape, decode_shape
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.blocks import blocks_for
from kv_transfer.pool import Pool
from stage_servers.engine.engine import Engine
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig, StepOutput
from stage_servers.profiling.plan import DecodePoint
from stage_servers.profiling.samples import StepSample
from stage_servers.profiling.timing import Stopwatch

_STEPS_PER_RUN = 4
_PACKED_PROMPTS = 4
_MOST_CHUNKS = 128  # of one prompt


def shape_of(output: StepOutput) -> StepShape:
    """What a step worked on."""
    prefilled = [chunk_shape(chunk.num_tokens, chunk.first_token) for chunk in output.prefilled]
    attended = sum(chunk.first_token + chunk.num_tokens for chunk in output.prefilled)
    shape = StepShape()
    if output.num_decode_tokens:
        shape = decode_shape(output.num_decode_tokens, output.num_context_tokens - attended)
    for each in prefilled:
        shape = shape.plus(each)
    return shape


class StepBench:
    """Runs the engine over one pool, whose content does not matter to the time; leaves every block free."""

    def __init__(self, model: Model, pool: Pool, max_sequences: int, watch: Stopwatch) -> None:
        self._model = model
        self._pool = pool
        self._max_sequences = max_sequences
        self._watch = watch
        self._num_specs = 0
        # One for all engines: what a stage server makes ready before its first step.
        self._runner = model.make_runner(pool.tensor, pool.layout.block_tokens, None)

    def prepare(self, most_tokens: int) -> None:
        """For steps of up to so many tokens."""
        self._runner.prepare(self._max_sequences, most_tokens)
        self.prefill(most_tokens, most_tokens)

    def prefill(self, chunk_tokens: int, prompt_tokens: int) -> list[StepSample]:
        """One prompt, chunk by chunk: samples at contexts that double."""
        num_chunks = min(_MOST_CHUNKS, max(1, prompt_tokens // chunk_tokens))
        kept = {0, *(1 << power for power in range(num_chunks.bit_length()) if 1 << power < num_chunks)}
        found: defaultdict[StepShape, list[float]] = defaultdict(list)

        def run() -> float:
            engine = self._engine(chunk_tokens)
            engine.add_prefill(self._spec(num_chunks * chunk_tokens), hand_over=False)
            total_s = 0.0
            for place in range(num_chunks):
                shape, seconds = self._step(engine)
                total_s += seconds
                if place in kept:
                    found[shape].append(seconds)
            return total_s

        self._watch.repeat(run)
        return [StepSample("prefill", shape, statistics.median(times)) for shape, times in found.items()]

    def packed(self, chunk_tokens: int) -> StepSample:
        """Several whole prompts in one step."""
        each = max(1, chunk_tokens // _PACKED_PROMPTS)
        shapes: list[StepShape] = []

        def run() -> float:
            engine = self._engine(_PACKED_PROMPTS * each)
            for _ in range(_PACKED_PROMPTS):
                engine.add_prefill(self._spec(each), hand_over=False)
            shape, seconds = self._step(engine)
            shapes.append(shape)
            return seconds

        seconds = statistics.median(self._watch.repeat(run))
        return StepSample("prefill", shapes[0], seconds)

    def decode(self, point: DecodePoint) -> StepSample:
        engine = self._decoding(point, chunk_tokens=point.num_sequences)
        shapes: list[StepShape] = []

        def run() -> float:
            steps = [self._step(engine) for _ in range(_STEPS_PER_RUN)]
            shapes.extend(shape for shape, _ in steps)
            return statistics.median(seconds for _, seconds in steps)

        self._step(engine)
        seconds = statistics.median(self._watch.repeat(run))
        self._end(engine, point)
        return StepSample("decode", shapes[len(shapes) // 2], seconds)

    def mixed(self, point: DecodePoint, chunk_tokens: int) -> StepSample:
        """A prefill chunk beside running decodes."""
        shapes: list[StepShape] = []

        def run() -> float:
            engine = self._decoding(point, chunk_tokens + point.num_sequences)
            engine.add_prefill(self._spec(chunk_tokens), hand_over=False)
            shape, seconds = self._step(engine)
            shapes.append(shape)
            self._end(engine, point)
            return seconds

        seconds = statistics.median(self._watch.repeat(run))
        return StepSample("mixed", shapes[0], seconds)

    def _engine(self, chunk_tokens: int) -> Engine:
        limits = EngineConfig(chunk_tokens, self._max_sequences, self._pool.layout.block_tokens)
        return Engine(self._model, self._pool.tensor, self._pool.blocks, limits, runner=self._runner)

    def _decoding(self, point: DecodePoint, chunk_tokens: int) -> Engine:
        """An engine whose sequences decode already, over whatever KV lies in the blocks."""
        engine = self._engine(chunk_tokens)
        num_blocks = blocks_for(point.context_tokens, self._pool.layout.block_tokens)
        for place in range(point.num_sequences):
            spec = self._spec(point.context_tokens, f"decode-{place}", is_decoding=True)
            engine.add_decode(spec, self._pool.blocks.allocate(num_blocks), point.context_tokens)
        return engine

    def _end(self, engine: Engine, point: DecodePoint) -> None:
        for place in range(point.num_sequences):
            engine.abort((f"decode-{place}", 0))

    def _step(self, engine: Engine) -> tuple[StepShape, float]:
        outputs: list[StepOutput] = []
        seconds = self._watch.once(lambda: outputs.append(engine.step()))
        return shape_of(outputs[0]), seconds

    def _spec(self, num_tokens: int, name: str = "", *, is_decoding: bool = False) -> SequenceSpec:
        self._num_specs += 1
        vocabulary = min(256, self._model.description.vocab_size)
        prompt = tuple(7 * token % vocabulary for token in range(num_tokens))
        return SequenceSpec(
            name or f"prefill-{self._num_specs}",
            0,
            prompt,
            SamplingParams(max_tokens=10_000 if is_decoding else 1),
            outputs=(1,) if is_decoding else (),
        )
