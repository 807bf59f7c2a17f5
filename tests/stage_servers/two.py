"""A sequence at its source, and the target that it is to move to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.families import load_family
from core.sequence import SequenceSpec
from elasticmm.v1 import stage_control_pb2 as pb
from stage_servers.engine.model import Model
from stage_servers.migration import MigrationTimeouts
from tests.exactness import make_question, make_spec
from tests.stage_servers.part import Part, until

MAX_TOKENS = 600


def ask(model: Model, attempt: int = 1) -> SequenceSpec:
    question = make_question(load_family(model.path), 4)
    spec = make_spec(load_family(model.path), question, "r", max_tokens=MAX_TOKENS, temperature=1.2, seed=7)
    return replace(spec, attempt=attempt)


@dataclass
class Two:
    """A source that decodes `spec`, and a target."""

    source: Part
    target: Part
    spec: SequenceSpec
    expected: list[int]

    @property
    def moved_spec(self) -> SequenceSpec:
        return replace(self.spec, attempt=2)

    def start(self) -> None:
        self.source.instance.prefill(self.spec, self.source.address)

    async def decoding(self, at_least: int = 5) -> None:
        await until(lambda: self.source.num_tokens(self.spec) >= at_least)

    def migrate(self, **changes: object) -> None:
        target = replace(self.target.address, **changes)  # type: ignore[arg-type]
        self.source.instance.migrate(self.spec.key, 2, target)

    async def report(self) -> pb.MigrationReport:
        await until(lambda: self.source.migrations)
        (report,) = self.source.migrations
        assert (report.request_id, report.attempt, report.new_attempt) == ("r", 1, 2)
        return report

    async def ended(self) -> None:
        await until(lambda: self.num_made == MAX_TOKENS)
        await until(lambda: self.source.is_free and self.target.is_free)
        self.source.assert_nothing_is_held()
        self.target.assert_nothing_is_held()

    @property
    def made(self) -> list[tuple[int, int]]:
        """(index, token) from both ends in the order of the coordinator's view."""
        return self.source.tokens[self.spec.key] + self.target.tokens.get(self.moved_spec.key, [])

    @property
    def num_made(self) -> int:
        return len(self.made)

    def assert_exact(self) -> None:
        """No token is lost, repeated or another."""
        assert self.made == list(enumerate(self.expected))


def shorten(two: Two, **timeouts: float) -> None:
    two.source.instance._migration._timeouts = MigrationTimeouts(**timeouts)
