"""What an instance tells the cluster it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from core.costs import StepShape
from simulator.job import Job

if TYPE_CHECKING:
    from simulator.instance import Instance


class Listener(Protocol):
    """Called in virtual time, from within the instance's events."""

    def encoded(self, instance: Instance, job: Job, index: int, seconds: float) -> None:
        """One media item's embedding is ready on the encoder; it took that long on the device."""
        ...

    def chunk_done(self, instance: Instance, job: Job, num_tokens: int, start_s: float) -> None:
        """KV of so many tokens was made since then, of a job that decodes elsewhere."""
        ...

    def prefilled(self, instance: Instance, job: Job) -> None:
        """The first token of this dispatch is out; `job.outputs` counts it."""
        ...

    def finished(self, instance: Instance, job: Job) -> None:
        """The last token is out; the instance has given its blocks back."""
        ...

    def lost(self, instance: Instance, job: Job) -> None:
        """It gave way and cannot be computed again here: to be dispatched again."""
        ...

    def left(self, instance: Instance, job: Job, kv_tokens: int | None) -> None:
        """It was asked to leave and stands still, with so many tokens of KV; None: it had gone before."""
        ...

    def leased(self, instance: Instance, job: Job) -> None:
        """Blocks for its hand-over are there."""
        ...

    def stepped(self, instance: Instance, shape: StepShape, seconds: float) -> None:
        """One step, or the mean one of a decode run."""
        ...

    def settled(self, instance: Instance) -> None:
        """The news of one event are all told: new work may be placed."""
        ...
