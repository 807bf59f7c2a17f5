"""The engine: sequences in, one packed step at a time, tokens out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import torch

from core.grammars import FormatError, Grammars, Matcher
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator, blocks_for
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.prefix import Prefix
from stage_servers.engine.batching import Batcher, Chunk, Selection
from stage_servers.engine.device import await_device
from stage_servers.engine.integrity import check_held, check_written
from stage_servers.engine.masks import Masks
from stage_servers.engine.records import (
    DecodeState,
    EngineConfig,
    EngineListener,
    EngineLoad,
    ItemsNeeded,
    Key,
    NotDecoding,
    SequenceFailure,
    StepOutput,
    TokenOutput,
)
from stage_servers.engine.sampler import Drawn, SampleRow, sample
from stage_servers.engine.sequence import Sequence
from stage_servers.engine.sequence_blocks import SequenceBlocks
from stage_servers.engine.served import ServedModel, StepRunner
from stage_servers.engine.step_report import report


class Engine:
    """Continuous batching over one block pool. Every method is called from one thread, the engine's.

    The pool is [2 * layers, blocks, block_tokens, kv_heads * head_dim] and belongs to the caller. Without a
    `cache` nothing of a sequence outlives it. `on_needed` is told of items whose embeddings nobody sends.
    """

    def __init__(
        self,
        model: ServedModel,
        kv: torch.Tensor,
        blocks: BlockAllocator,
        config: EngineConfig,
        listener: EngineListener | None = None,
        *,
        cache: KvCache | None = None,
        on_needed: ItemsNeeded = lambda key, items: None,  # noqa: ARG005
        runner: StepRunner | None = None,
    ) -> None:
        """`runner`: one made for this model and pool, of which what was made ready is used again."""
        wanted = (model.kv_planes, blocks.num_blocks, config.block_tokens, model.kv_token_elements)
        if tuple(kv.shape) != wanted or kv.dtype != model.dtype:
            raise ValueError(
                f"kv: {tuple(kv.shape)} of {kv.dtype}, the model wants {wanted} of {model.dtype}"
            )
        if not kv.is_contiguous():
            raise ValueError("kv: the pool must be contiguous")
        self._model = model
        self._blocks = blocks
        self._config = config
        description = model.description
        self.grammars = Grammars(model.path, description.vocab_size, description.eos_token_ids)
        self._masks = Masks()
        self.cache = cache
        self._on_needed = on_needed
        self._held = SequenceBlocks(blocks, config.block_tokens, cache)
        self._batcher = Batcher(config, self._held)
        self._runner = runner or model.make_runner(kv, config.block_tokens, listener)
        self._sequences: dict[Key, Sequence] = {}  # in order of arrival
        self._num_arrived = 0

    def prepare(self) -> None:
        """Does ahead what first steps would wait for, such as compiling; call while every block is free."""
        self._runner.prepare(self._config.max_sequences, self._config.max_batch_tokens)

    # -- what comes in

    def add_prefill(
        self,
        spec: SequenceSpec,
        *,
        hand_over: bool,
        promised_tokens: int = 0,
        prefix: Prefix | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        """Starts a sequence; with `hand_over` it stops after one token and keeps its blocks until `release`.

        Media items within the first `promised_tokens` are taken to be cached: no embedding of theirs comes
        unless it is asked for. `prefix`: of the cache's `begin`, where the caller has it already; `matcher`:
        of its format likewise, else that is compiled here and now. Raises ValueError naming the field if it
        could never run here.
        """
        self._check(spec)
        sequence = self._add(spec, matcher, hand_over=hand_over, prefix=prefix)
        sequence.promised_tokens = promised_tokens
        self._look([sequence])

    def add_decode(
        self, spec: SequenceSpec, block_ids: list[int], num_cached_tokens: int, matcher: Matcher | None = None
    ) -> None:
        """Goes on with a sequence whose KV lies in `block_ids`; they belong to the engine unless this raises.
        Should it be preempted, its media are asked for.

        `matcher`: as of `add_prefill`.
        Raises ValueError if the blocks do not hold exactly all tokens but the newest.
        """
        self._check(spec)
        if not spec.outputs or num_cached_tokens != len(spec.prompt) + len(spec.outputs) - 1:
            raise ValueError(f"num_cached_tokens: {num_cached_tokens} is not all tokens but the newest")
        if len(block_ids) < blocks_for(num_cached_tokens, self._config.block_tokens):
            raise ValueError(f"block_ids: {len(block_ids)} blocks do not hold {num_cached_tokens} tokens")
        sequence = self._add(spec, matcher, hand_over=False)
        sequence.promised_tokens = len(spec.prompt)
        sequence.blocks = list(block_ids)
        sequence.num_computed = num_cached_tokens
        self._held.arrived(sequence)

    def provide_embedding(self, key: Key, item_index: int, embedding: torch.Tensor) -> bool:
        """Gives a sequence one item's embedding [num_tokens, embedding_width]; False if the key is gone."""
        sequence = self._sequences.get(key)
        if sequence is None:
            return False
        spans = [span for span in sequence.spec.media if span.item_index == item_index]
        if not spans:
            raise ValueError(f"item_index: the sequence has no media item {item_index}")
        wanted = (spans[0].num_tokens, self._model.embedding_width)
        if tuple(embedding.shape) != wanted:
            raise ValueError(f"embedding: {tuple(embedding.shape)}, item {item_index} wants {wanted}")
        sequence.embeddings[item_index] = embedding.to(self._model.device, self._model.dtype)
        return True

    def abort(self, key: Key) -> bool:
        """Ends a sequence and frees all it holds; False if it is unknown."""
        sequence = self._sequences.pop(key, None)
        if sequence is None:
            return False
        self._held.free(sequence)
        return True

    def release(self, key: Key) -> bool:
        """Ends a handed-over sequence whose KV was sent; False if it is unknown."""
        return self.abort(key)

    def freeze(self, key: Key) -> DecodeState:
        """Parks a decoding sequence where it is, until `resume` or `release`. Raises NotDecoding."""
        state = self.decode_state(key)
        self._sequences[key].is_parked = True
        return state

    def resume(self, key: Key) -> bool:
        """Lets a frozen sequence go on; False if it is unknown or not frozen."""
        sequence = self._sequences.get(key)
        if sequence is None or sequence.hand_over or not sequence.is_parked:
            return False
        sequence.is_parked = False
        return True

    def make_room(self, num_blocks: int) -> None:
        """Others than the engine wait for so many blocks: what is cached and not in use goes for them."""
        if self.cache is not None:
            self.cache.make_room_elsewhere(num_blocks)
            self._look(self._sequences.values())

    def set_cache_shares(self, parts: Mapping[str, float]) -> None:
        """Tenants' own parts of each tier, 0 to 1, from now on."""
        if self.cache is not None:
            self.cache.book.set_shares(parts)

    def expire_cache(self) -> None:
        """What went unused for too long goes."""
        if self.cache is not None:
            self.cache.expire()
            self._look(self._sequences.values())

    def flush_cache(self, tenant: str | None = None) -> None:
        """Nobody finds any more what is cached, or what is the tenant's."""
        if self.cache is not None:
            self.cache.flush(tenant)
            self._look(self._sequences.values())

    # -- what can be asked

    def decode_state(self, key: Key) -> DecodeState:
        """How far a decoding sequence is. Raises NotDecoding."""
        sequence = self._sequences.get(key)
        if sequence is None:
            raise NotDecoding("the sequence is not here, or not any more")
        if sequence.is_parked:
            raise NotDecoding("the sequence stands still for another hand-over")
        if not sequence.is_decoding:
            raise NotDecoding("the sequence has no KV to move: it is being prefilled, or computed again")
        return DecodeState(
            block_ids=tuple(sequence.blocks),
            num_tokens=sequence.num_computed,
            most_tokens=min(sequence.most_tokens, self._model.context_tokens - 1),
            outputs=tuple(sequence.tokens[len(sequence.spec.prompt) :]),
            num_restarts=sequence.num_restarts,
        )

    def block_ids(self, key: Key) -> list[int]:
        """The blocks of a sequence in order of tokens; raises KeyError if it is unknown."""
        return list(self._sequences[key].blocks)

    @property
    def has_work(self) -> bool:
        """Whether a step could run something now. Blocks that others free may change it."""
        return self._batcher.can_run(self._sequences.values())

    @property
    def wants_step_first(self) -> bool:
        """Whether a step should go before a waiting encode batch: for the sake of a prompt without media."""
        is_text_first = self._config.prompt_order == "text-first"
        return is_text_first and self._batcher.has_ready_text(self._sequences.values())

    @property
    def num_awaited(self) -> int:
        """Embeddings that prompts here wait for; 0 where one could run without."""
        return self._batcher.num_awaited(self._sequences.values())

    @property
    def num_free_blocks(self) -> int:
        """Blocks that hold nothing, or only what is cached and not in use. Any thread."""
        return self._held.num_room

    @property
    def load(self) -> EngineLoad:
        """Any thread: read from a copy, since sequences come and go meanwhile."""
        active = [s for s in list(self._sequences.values()) if not s.is_parked]
        waiting = [s.num_pending for s in active if not s.is_decoding]
        return EngineLoad(len(waiting), len(active) - len(waiting), sum(waiting))

    def close(self) -> None:
        """Ends its threads; nothing is called after that."""
        self._masks.close()

    def check_integrity(self) -> None:
        """Raises AssertionError if blocks and sequences disagree."""
        self._blocks.check_integrity()
        sequences = self._sequences.values()
        if self.cache is not None:
            self.cache.check_integrity([entry for s in sequences if s.prefix for entry in s.prefix.entries])
            check_written(sequences, self._blocks, self._config.block_tokens)
        check_held(sequences, self._blocks, self._config.block_tokens)

    # -- the step

    @torch.inference_mode()
    def step(self) -> StepOutput:
        """Runs one packed batch; an empty output if nothing could run."""
        started_s = time.perf_counter()
        self._look(self._sequences.values())
        selection = self._batcher.select(self._sequences.values())
        self._look(selection.preempted)  # no other step may come before one of them is asked for something
        failed = [self._fail_starved(sequence) for sequence in selection.starved]
        tokens: list[TokenOutput] = []
        late: list[Chunk] = []
        if selection.chunks:
            logits = self._runner.run(selection)
            late = self._masks.late(selection.decodes)
            ending, logits = _without(late, [chunk for chunk in selection.chunks if chunk.is_last], logits)
            for chunk in selection.chunks:
                if chunk not in late:
                    chunk.sequence.num_computed = chunk.end_token
            tokens = self._advance(ending, logits, failed)
            if not tokens:
                # Else drawing has waited. Peers may write past this device's queue to blocks given up next.
                await_device(self._model.device)
        output = report(selection, tokens, failed, late, time.perf_counter() - started_s)
        self._keep(selection, output)
        return output

    def _look(self, sequences: Iterable[Sequence]) -> None:
        """What the cache has for those that wait; items that it has not and nobody sends are asked for."""
        for sequence in sequences:
            self._held.look(sequence)
            items = sequence.unpromised_items if sequence.promised_tokens else []
            if items:
                sequence.asked.update(items)
                self._on_needed(sequence.key, tuple(items))

    def _keep(self, selection: Selection, output: StepOutput) -> None:
        """The cache has the blocks that the step filled, and learns what a prompt takes."""
        if self.cache is None or not selection.chunks:
            return
        if selection.prefills:
            self.cache.seconds.note(output.shape, output.duration_s)
        for chunk in selection.chunks:
            if chunk.sequence.is_started:  # else it has ended
                self._held.filled(chunk.sequence, chunk.first_token)

    def _advance(
        self, ending: list[Chunk], logits: torch.Tensor, failed: list[SequenceFailure]
    ) -> list[TokenOutput]:
        """Draws a token for every chunk that reached its sequence's end."""
        if not ending:
            return []
        tokens: list[TokenOutput] = []
        lost: dict[Key, SequenceFailure] = {}
        rows = [_row(chunk.sequence, lost) for chunk in ending]
        for chunk, drawn in zip(ending, sample(logits, rows), strict=True):
            sequence = chunk.sequence
            if sequence.key in lost:
                self.abort(sequence.key)
                failed.append(lost[sequence.key])
            elif drawn is None:
                self._held.spoil(sequence)
                self.abort(sequence.key)
                failed.append(SequenceFailure(sequence.key, "the model's logits are no numbers", False))
            else:
                tokens.append(self._append(sequence, drawn))
        return tokens

    def _append(self, sequence: Sequence, drawn: Drawn) -> TokenOutput:
        index = sequence.num_outputs
        sequence.tokens.append(drawn.token_id)
        finish = sequence.finish_reason(drawn.token_id, self._model.context_tokens)
        if finish is not None:
            self.abort(sequence.key)
        sequence.is_parked = sequence.hand_over
        if finish is None and not sequence.hand_over:
            self._masks.prepare(sequence)
        handed_over = sequence.hand_over and finish is None
        return TokenOutput(sequence.key, index, drawn.token_id, drawn.logprobs, finish, handed_over)

    def _fail_starved(self, sequence: Sequence) -> SequenceFailure:
        self.abort(sequence.key)
        return SequenceFailure(sequence.key, "no block is free and no sequence can be recomputed here", True)

    def _check(self, spec: SequenceSpec) -> None:
        if spec.key in self._sequences:
            raise ValueError(f"request_id: {spec.request_id!r} attempt {spec.attempt} is here already")
        if not spec.prompt:
            raise ValueError("prompt: is empty")
        num_tokens = len(spec.prompt) + len(spec.outputs)
        if num_tokens >= self._model.context_tokens:
            raise ValueError(
                f"prompt: {num_tokens} tokens leave no room in a context of {self._model.context_tokens}"
            )
        if len(spec.outputs) >= spec.sampling.max_tokens:
            raise ValueError("outputs: the sequence has reached max_tokens already")
        room = self._blocks.num_blocks * self._config.block_tokens
        if num_tokens > room:
            raise ValueError(f"prompt: {num_tokens} tokens, the block pool holds {room}")
        if any(
            not 0 <= token < self._model.description.vocab_size for token in (*spec.prompt, *spec.outputs)
        ):
            raise ValueError("prompt: holds a token id outside the vocabulary")

    def _add(
        self, spec: SequenceSpec, matcher: Matcher | None, *, hand_over: bool, prefix: Prefix | None = None
    ) -> Sequence:
        positions, delta = self._model.positions(len(spec.prompt), spec.media)
        waits_for_all = self._config.encoding == "blocking"
        sequence = Sequence(spec, self._num_arrived, positions, delta, hand_over, waits_for_all)
        if spec.format is not None:
            sequence.matcher = matcher or self.grammars.matcher(spec.format, spec.tenant)
            self._masks.prepare(sequence)
        if self.cache is not None:
            sequence.prefix = prefix or self.cache.begin(spec)
        self._num_arrived += 1
        self._sequences[spec.key] = sequence
        return sequence


def _without(
    late: list[Chunk], ending: list[Chunk], logits: torch.Tensor
) -> tuple[list[Chunk], torch.Tensor]:
    """Chunks that get a token, and their rows of the logits."""
    if not late:
        return ending, logits
    places = [place for place, chunk in enumerate(ending) if chunk not in late]
    return [ending[place] for place in places], logits[places]


def _row(sequence: Sequence, lost: dict[Key, SequenceFailure]) -> SampleRow:
    """Notes in `lost` why the sequence cannot follow its format any more."""
    num_prompt = len(sequence.spec.prompt)
    outputs = sequence.tokens[num_prompt:] if sequence.spec.sampling.has_penalties else ()
    try:
        allowed = None if sequence.mask is None else sequence.mask.result()
    except FormatError as error:
        assert sequence.spec.format is not None
        lost[sequence.key] = SequenceFailure(
            sequence.key, f"cannot be followed any further: {error}", False, sequence.spec.format.field
        )
        allowed = None
    return SampleRow(sequence.spec.sampling, sequence.num_outputs, sequence.spec.prompt, outputs, allowed)
