"""Instances for one request, weighed one after the other: for few of them quicker than columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.columns import UNBOUNDED
from coordinator.policy.costing import Costing
from coordinator.policy.forms import PD, D, E, P
from coordinator.policy.lateness import Queueing
from coordinator.policy.work import Work
from core.stages import COUPLED, ModalityGroup, Roles, Stage

_Batch = tuple[int, int, int]  # sequences, their tokens or blocks, version of the costs
_Media = tuple[tuple["_Row", ...], float]  # the encoder of each item, and when all will have arrived

_NOWHERE: _Media = (), inf


class Choice(NamedTuple):
    """Names of the chosen instances, the predicted seconds to the first token, and what was found there."""

    encode: tuple[str, ...]
    prefill: str
    decode: str
    first_s: float
    backlog_s: float  # of the prefill instance
    decode_step_s: float


class OneByOne:
    """The same rules as those of `Dispatch` over columns, to the last bit; its docstring has them."""

    def __init__(self, costing: Costing, queueing: Queueing, *, most_queued_s: float, together: bool) -> None:
        self._costing = costing
        self._queueing = queueing
        self._most_queued_s = most_queued_s
        self._together = together
        self._books: Books | None = None
        self._version = -1
        self._position = 0  # in the journal
        self._rows: dict[str, _Row] = {}
        self._players: dict[tuple[Roles, ModalityGroup], list[_Row]] = {}

    def choose(self, books: Books, work: Work) -> Choice | None:
        """None where no instance takes the request now."""
        self._refresh(books)
        if not work.media:
            prefill, first_s = self._soonest_text(work)
            encoders: tuple[_Row, ...] = ()
        else:
            prefill, first_s, encoders = self._soonest_media(work)
        if prefill is None:
            return None
        decode = prefill if self._together else self._decoder(work, prefill)
        if decode is None:
            return None
        return Choice(
            tuple([row.name for row in encoders]),
            prefill.name,
            decode.name,
            first_s,
            prefill.backlog_s,
            decode.decode_step_s(),
        )

    def _refresh(self, books: Books) -> None:
        journal = books.journal
        if books is not self._books or books.version != self._version:
            self._books, self._version = books, books.version
            self._rows = {name: _Row(book, self._costing) for name, book in books.instances.items()}
            self._players.clear()
        elif journal.end != self._position:
            changed = journal.since(self._position)
            rows = self._rows
            for name in rows if changed is None else changed:
                if name in rows:  # and not gone meanwhile
                    rows[name].fill()
        self._position = journal.end

    def _open(self, roles: Roles, group: ModalityGroup) -> list[_Row]:
        """Open instances that play all these stages for the group."""
        known = self._players.get((roles, group))
        if known is None:
            known = self._players[roles, group] = [
                row
                for row in self._rows.values()
                if row.book.is_open and roles <= row.book.roles and row.book.serves(group)
            ]
        return known

    def _soonest_text(self, work: Work) -> tuple[_Row | None, float]:
        tokens, prefill_s = work.context_tokens, work.prefill_s
        promised = work.promised_tokens if self._together else tokens
        most_open, slack_s = self._costing.open_tokens - tokens, self._queueing.slack_s(work)
        chunk_s, chunk_tokens = self._costing.chunk_s, self._costing.profile.chunk_tokens
        best, best_s = None, inf
        for row in self._open(PD if self._together else P, work.group):
            before = row.text_tokens
            if row.free_kv_tokens < promised or (before and before > most_open):
                continue
            if before and before * row.stretch * chunk_s / chunk_tokens > slack_s:
                continue
            first_s = row.backlog_s + prefill_s * row.stretch
            if first_s < best_s:
                best, best_s = row, first_s
        return best, best_s

    def _soonest_media(self, work: Work) -> tuple[_Row | None, float, tuple[_Row, ...]]:
        together = self._together
        promised = work.promised_tokens if together else work.context_tokens
        blocks, encode_s, prefill_s = work.embedding_blocks, work.encode_s, work.prefill_s
        slack_s, most_queued_s = self._queueing.slack_s(work), self._most_queued_s
        spread: _Media | None = _NOWHERE if together else None  # found once an instance is open
        best, best_s, is_local = None, inf, False
        for row in self._open(COUPLED if together else P, work.group):
            if row.free_kv_tokens < promised or row.free_embedding_blocks < blocks:
                continue
            is_free, backlog_s, own_s = not row.media_tokens, row.backlog_s, prefill_s * row.stretch
            local_s = inf
            if row.encodes:
                queued_s = min(encode_s + own_s, slack_s)
                if not (is_free or backlog_s <= queued_s or backlog_s <= most_queued_s):
                    continue
                local_s = backlog_s + encode_s
            if spread is None:
                spread = self._spread(work)
            ready_s = spread[1]
            start_s = backlog_s if backlog_s > ready_s else ready_s
            if not is_free and backlog_s > ready_s + own_s:
                start_s = inf
            first_s = (start_s if start_s < local_s else local_s) + own_s
            if first_s < best_s:
                best, best_s, is_local = row, first_s, local_s <= start_s
        if best is None or spread is None:
            return None, inf, ()
        return best, best_s, (best,) * len(work.media) if is_local else spread[0]

    def _spread(self, work: Work) -> _Media:
        """Each item to the encoder that is predicted to finish it first, the longest item first."""
        most_s = max(work.encode_s, self._most_queued_s)
        encoders = [row for row in self._open(E, work.group) if row.encode_s <= most_s]
        if not encoders:
            return _NOWHERE
        ends_s = [row.backlog_s for row in encoders]
        chosen = [encoders[0]] * len(work.media)
        ready_s = 0.0
        for index in _longest_first(work):
            item = work.media[index]
            end_s = min(ends_s)
            place = ends_s.index(end_s)
            end_s += item.encode_s
            ends_s[place], chosen[index] = end_s, encoders[place]
            ready_s = max(ready_s, end_s + self._costing.model.embedding_move_s(item.num_tokens))
        return tuple(chosen), ready_s

    def _decoder(self, work: Work, prefill: _Row) -> _Row | None:
        promised, outputs = work.promised_tokens, work.reserve_tokens
        hand_over_s: float | None = None
        best, best_s = None, inf
        for row in self._open(D, work.group):
            if row.free_kv_tokens < promised:
                continue
            end_s = row.decode_step_s() * outputs + row.backlog_s
            if row is prefill:
                end_s += -1e-9
            else:
                if hand_over_s is None:
                    hand_over_s = self._costing.hand_over_s(work)
                end_s += hand_over_s
            if end_s < best_s:
                best, best_s = row, end_s
        return best


class _Row:
    """One instance in numbers. Step times are found anew only where its batch changed."""

    __slots__ = (
        "_batch",
        "_costing",
        "_promise",
        "_step_s",
        "backlog_s",
        "book",
        "encode_s",
        "encodes",
        "free_embedding_blocks",
        "free_kv_tokens",
        "media_tokens",
        "name",
        "stretch",
        "text_tokens",
    )

    def __init__(self, book: InstanceBook, costing: Costing) -> None:
        self._costing = costing
        self.book = book
        self.name = book.instance_id
        self.encodes = Stage.ENCODE in book.roles
        self._batch: _Batch | None = None  # that `stretch` is of
        self._promise: _Batch | None = None  # that `decode_step_s` was asked of
        self._step_s = 0.0
        self.fill()

    def fill(self) -> None:
        """`Columns` says what each number is."""
        book, load, costing = self.book, self.book.load, self._costing
        batch = load.decoding, load.context_tokens, costing.model.version
        if batch != self._batch:
            self._batch = batch
            decoding = load.decoding
            self.stretch = costing.prefill_stretch(decoding, load.context_tokens) if decoding else 1.0
        self.free_kv_tokens = (book.total_kv_blocks - load.kv_blocks) * book.block_tokens
        total = book.total_embedding_blocks
        self.free_embedding_blocks = UNBOUNDED if total is None else total - load.embedding_blocks
        self.media_tokens = load.media_tokens
        self.text_tokens = load.prefill_tokens - load.media_tokens
        self.encode_s = self.backlog_s = load.encode_s
        if load.prefills:
            self.backlog_s += load.prefill_s * self.stretch

    def decode_step_s(self) -> float:
        """Found where it is asked for: coupled instances are hardly ever chosen by it."""
        load = self.book.load
        promise = load.sequences, load.kv_blocks, self._costing.model.version
        if promise != self._promise:
            self._promise = promise
            self._step_s = self._costing.promised_step_s(self.book)
        return self._step_s


def _longest_first(work: Work) -> Sequence[int]:
    media = work.media
    if len(media) == 1:
        return (0,)
    return sorted(range(len(media)), key=lambda index: -media[index].encode_s)
