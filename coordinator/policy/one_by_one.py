"""Instances for one request, weighed one after the other: for few of them quicker than columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.choice import Choice
from coordinator.policy.columns import UNBOUNDED
from coordinator.policy.costing import Costing
from coordinator.policy.forms import PD, D, E, P
from coordinator.policy.lateness import Queueing
from coordinator.policy.reuse import Reuse, Start
from coordinator.policy.work import Work, are_small
from core.stages import COUPLED, ModalityGroup, Roles, Stage

_Media = tuple[tuple["_Row", ...], float]  # encoders of the needed items, and when all will have arrived

_NOWHERE: _Media = (), inf
_NO_MEDIA: _Media = (), 0.0


class OneByOne:
    """The same rules as those of `Dispatch` over columns, to the last bit; its docstring has them."""

    def __init__(self, costing: Costing, queueing: Queueing, *, together: bool) -> None:
        self._costing = costing
        self._queueing = queueing
        self._together = together
        self._books: Books | None = None
        self._version = -1
        self._costs_version = -1
        self._position = 0  # in the journal
        self._rows: dict[str, _Row] = {}
        self._players: dict[tuple[Roles, ModalityGroup], list[_Row]] = {}

    def choose(self, books: Books, work: Work, reuse: Reuse, *, is_due: bool) -> Choice | None:
        """None where no instance takes the request now. `is_due`: it waits for no better moment."""
        self._refresh(books)
        if not work.media:
            prefill, first_s = self._soonest_text(work, reuse)
            encoders: tuple[str, ...] = ()
        else:
            prefill, first_s, encoders = self._soonest_media(work, reuse, is_due=is_due)
        if prefill is None:
            return None
        start = reuse.start_at(prefill.name)
        decode = prefill if self._together else self._decoder(work, prefill, start)
        if decode is None:
            return None
        return Choice(
            encoders,
            prefill.name,
            decode.name,
            first_s,
            prefill.backlog_s,
            decode.decode_step_s(),
            start,
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
        if self._costs_version != self._costing.model.version:
            self._costs_version = self._costing.model.version
            for row in self._rows.values():
                row.step_s = None

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

    def _soonest_text(self, work: Work, reuse: Reuse) -> tuple[_Row | None, float]:
        tokens = work.context_tokens
        promised = work.promised_tokens if self._together else tokens
        most_open, slack_s = self._costing.open_tokens - tokens, self._queueing.slack_s(work)
        chunk_s, chunk_tokens = self._costing.chunk_s, self._costing.profile.chunk_tokens
        same = reuse.same_for_all
        best, best_s = None, inf
        for row in self._open(PD if self._together else P, work.group):
            start = same or reuse.start_at(row.name)
            before = row.text_tokens
            if row.free_kv_tokens < promised or (before and before > most_open + start.cached_tokens):
                continue
            if before and before * row.stretch * chunk_s / chunk_tokens > slack_s:
                continue
            begin_s = row.backlog_s
            if start.is_warm and start.arrive_s > begin_s:
                begin_s = start.arrive_s
            first_s = begin_s + start.prefill_s * row.stretch
            if first_s < best_s:
                best, best_s = row, first_s
        return best, best_s

    def _soonest_media(
        self, work: Work, reuse: Reuse, *, is_due: bool
    ) -> tuple[_Row | None, float, tuple[str, ...]]:
        together = self._together
        promised = work.promised_tokens if together else work.context_tokens
        blocks, slack_s = work.embedding_blocks, self._queueing.slack_s(work)
        most_queued_s, most_text_s = self._costing.most_queued_s, self._costing.most_text_s
        same = reuse.same_for_all
        spreads: dict[tuple[int, ...], _Media] = {}  # found once an instance is open
        spread_of: Start | None = None  # whose `media_s` is known
        media_s = inf
        best, best_s, is_local = None, inf, False
        for row in self._open(COUPLED if together else P, work.group):
            if row.free_kv_tokens < promised or row.free_embedding_blocks < blocks:
                continue
            start = same or reuse.start_at(row.name)
            is_free, backlog_s, own_s = not row.media_tokens, row.backlog_s, start.prefill_s * row.stretch
            local_s, arrive_s = inf, start.arrive_s
            if row.encodes:
                most_s = max(most_queued_s, min(slack_s, start.encode_s + own_s))
                if is_free and (is_due or row.text_tokens):
                    most_s = inf if is_due else most_text_s
                if backlog_s > most_s:
                    continue
                local_s = backlog_s + start.encode_s
                if start.is_warm and arrive_s > local_s:
                    local_s = arrive_s
            if start is not spread_of:
                spread_of, media_s = start, self._spread(work, start, spreads)[1]
            ready_s = media_s if media_s > arrive_s else arrive_s
            start_s = backlog_s if backlog_s > ready_s else ready_s
            if not is_free and backlog_s > ready_s + own_s:
                start_s = inf
            first_s = (start_s if start_s < local_s else local_s) + own_s
            if first_s < best_s:
                best, best_s, is_local = row, first_s, local_s <= start_s
        if best is None:
            return None, inf, ()
        chosen, start = best, reuse.start_at(best.name)
        rows = (best,) * len(start.needed) if is_local else self._spread(work, start, spreads)[0]
        names = [row.name for row in rows]
        return best, best_s, reuse.encoders(start, best.name, names, lambda: self._stand_in(work, chosen))

    def _spread(self, work: Work, start: Start, known: dict[tuple[int, ...], _Media]) -> _Media:
        """Each needed item to the encoder that is predicted to finish it first, the longest item first."""
        needed = tuple(start.needed)
        if needed not in known:
            if self._together:
                known[needed] = _NOWHERE
            else:
                known[needed] = self._found_spread(work, needed, start.encode_s) if needed else _NO_MEDIA
        return known[needed]

    def _found_spread(self, work: Work, needed: Sequence[int], encode_s: float) -> _Media:
        most_s = max(encode_s, self._costing.most_queued_s)
        passes = are_small(work, needed)
        encoders = [
            row
            for row in self._open(E, work.group)
            if row.encode_s - (row.passed_s if passes else 0.0) <= most_s
        ]
        if not encoders:
            return _NOWHERE
        ends_s = [row.backlog_s - (row.passed_s if passes else 0.0) for row in encoders]
        chosen: dict[int, _Row] = {}
        ready_s = 0.0
        for index in _longest_first(work, needed):
            item = work.media[index]
            end_s = min(ends_s)
            place = ends_s.index(end_s)
            end_s += item.encode_s
            ends_s[place], chosen[index] = end_s, encoders[place]
            ready_s = max(ready_s, end_s + self._costing.model.embedding_move_s(item.num_tokens))
        return tuple([chosen[index] for index in needed]), ready_s

    def _stand_in(self, work: Work, prefill: _Row) -> str:
        """Who would encode what a prefix spares: the prefill instance, else the least busy encoder."""
        encoders = self._open(E, work.group)
        if prefill.encodes or not encoders:
            return prefill.name
        return min(encoders, key=lambda row: row.backlog_s).name

    def _decoder(self, work: Work, prefill: _Row, start: Start) -> _Row | None:
        promised, outputs = work.promised_tokens, work.reserve_tokens
        hand_over_s: float | None = None
        best, best_s = None, inf
        for row in self._open(D, work.group):
            if row.free_kv_tokens < promised:
                continue
            step_s = row.step_s
            if step_s is None:
                step_s = row.decode_step_s()
            end_s = step_s * outputs + row.backlog_s
            if row is prefill:
                end_s += -1e-9
            else:
                if hand_over_s is None:
                    hand_over_s = self._costing.hand_over_s(work, start.prefill_s)
                end_s += hand_over_s
            if end_s < best_s:
                best, best_s = row, end_s
        return best


class _Row:
    """One instance in numbers. Step times are found anew only where its batch changed."""

    __slots__ = (
        "_context_tokens",
        "_costing",
        "_costs_version",
        "_decoding",
        "_kv_blocks",
        "_sequences",
        "backlog_s",
        "book",
        "encode_s",
        "encodes",
        "free_embedding_blocks",
        "free_kv_tokens",
        "media_tokens",
        "name",
        "passed_s",
        "step_s",
        "stretch",
        "text_tokens",
    )

    def __init__(self, book: InstanceBook, costing: Costing) -> None:
        self._costing = costing
        self.book = book
        self.name = book.instance_id
        self.encodes = Stage.ENCODE in book.roles
        self._decoding = self._context_tokens = self._costs_version = -1  # that `stretch` is of
        self._sequences = self._kv_blocks = -1  # that `step_s` is of
        self.step_s: float | None = None  # found where it is asked for: coupled instances need it hardly ever
        self.fill()

    def fill(self) -> None:
        """`Columns` says what each number is."""
        book, load = self.book, self.book.load
        decoding, context_tokens = load.decoding, load.context_tokens
        version = self._costing.model.version
        if (
            context_tokens != self._context_tokens
            or decoding != self._decoding
            or version != self._costs_version
        ):
            self._decoding, self._context_tokens, self._costs_version = decoding, context_tokens, version
            self.stretch = self._costing.prefill_stretch(decoding, context_tokens) if decoding else 1.0
        kv_blocks = load.kv_blocks
        if kv_blocks != self._kv_blocks or load.sequences != self._sequences:
            self._kv_blocks, self._sequences, self.step_s = kv_blocks, load.sequences, None
        free_tokens = (book.total_kv_blocks - kv_blocks) * book.block_tokens
        self.free_kv_tokens = 0 if self._costing.is_crowded(book) else free_tokens
        total = book.total_embedding_blocks
        self.free_embedding_blocks = UNBOUNDED if total is None else total - load.embedding_blocks
        self.media_tokens = load.media_tokens
        self.text_tokens = load.prefill_tokens - load.media_tokens
        self.encode_s = self.backlog_s = load.encode_s
        self.passed_s = load.passed_s if load.encode_items else 0.0
        if load.prefills:
            self.backlog_s += load.prefill_s * self.stretch

    def decode_step_s(self) -> float:
        if self.step_s is None:
            self.step_s = self._costing.promised_step_s(self.book)
        return self.step_s


def _longest_first(work: Work, needed: Sequence[int]) -> Sequence[int]:
    if len(needed) == 1:
        return needed
    media = work.media
    return sorted(needed, key=lambda index: -media[index].encode_s)
