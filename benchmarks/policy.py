"""What one decision costs: a placement and a plan tick, by the number of instances and of waiting requests.

    python -m benchmarks.policy [--json FILE]

Every cluster is half full when it is measured; the figures are medians over repeated calls in microseconds
and milliseconds, with the longest beside them.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.prefixes import as_prefixes
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import make_scheduler
from coordinator.policy.warmth import Warmth
from coordinator.policy.work import MediaWork, Work
from core.collector import settle_collector
from core.profile import Profile
from core.profile_file import load_profile
from core.stages import COUPLED, ModalityGroup

PROFILE = "a800-qwen2.5-vl-7b"
SIZES = ((8, 100), (100, 1000), (1000, 10_000), (10_000, 100_000))
PICTURE_TOKENS = 667


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one policy set on one size of cluster."""

    policy: str
    instances: int
    waiting: int
    place_us: float  # one placement, the update of the books not counted
    place_most_us: float
    note_us: float  # that update
    tick_ms: float
    tick_most_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--most-instances", type=int, default=SIZES[-1][0])
    arguments = parser.parse_args()
    settle_collector()  # as the coordinator's process does
    sizes = [size for size in SIZES if size[0] <= arguments.most_instances]
    profile = load_profile(PROFILE)
    found = [
        measure(name, profile, *size)
        for name in ("coupled", "static:equal", "emp", "emp, few warm", "emp, all warm")
        for size in sizes
    ]
    heads = ("instances", "waiting", "place us", "longest", "books us", "tick ms", "longest")
    print(f"{'policy':14}" + "".join(f"{head:>11}" for head in heads))
    for each in found:
        numbers = list(asdict(each).values())[1:]
        print(f"{each.policy:14}" + "".join(f"{number:11.5g}" for number in numbers))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


def measure(name: str, profile: Profile, instances: int, waiting: int) -> Figures:
    scheduler, books = busy(name, profile, instances, waiting)
    gc.collect()
    place, note = placements(scheduler, books, min(200, instances))
    ticks = [timed(partial(scheduler.plan, books, 100.0 + at)) for at in range(20)]
    return Figures(
        name,
        instances,
        books.num_waiting(),
        statistics.median(place) * 1e6,
        max(place) * 1e6,
        statistics.median(note) * 1e6,
        statistics.median(ticks) * 1e3,
        max(ticks) * 1e3,
    )


class Holders:
    """Three instances have parts of every prompt, two its picture; `all_warm`: all have its first granule."""

    def __init__(self, instances: int, *, all_warm: bool) -> None:
        self.version = 0
        heads = {f"i{number}": 16 for number in range(instances if all_warm else 0)}
        heads |= {f"i{number * instances // 3}": 16 * number + 112 for number in range(3)}
        pictures = frozenset(f"i{number * instances // 2}" for number in range(2))
        self._warmth = Warmth(as_prefixes(heads), (pictures,))  # as the index answers

    def of(self, work: Work) -> Warmth:  # noqa: ARG002
        return self._warmth


def busy(name: str, profile: Profile, instances: int, waiting: int) -> tuple[Scheduler, Books]:
    """A cluster in the plan's form, with an answer being made on every instance and a queue before it."""
    name, _, caches = name.partition(", ")
    warmth = Holders(instances, all_warm=caches == "all warm") if caches else None
    scheduler = make_scheduler(name, profile, Slo(0.5, 0.1, 1.0), warmth=warmth)
    books = Books()
    for number in range(instances):
        blocks = profile.kv_tokens // profile.block_tokens
        books.add_instance(
            InstanceBook(f"i{number}", COUPLED, ModalityGroup.SHARED, profile.block_tokens, blocks)
        )
    for number in range(waiting + 2 * instances):
        work = request(profile, number, number * 1e-4)
        scheduler.note_arrival(work, work.arrival_s)
        books.queue(work)
    for instance_id, wanted in scheduler.plan(books, 1.0).wanted.items():
        books.set_roles(instance_id, wanted.roles, wanted.group, 1.0)
    started = 0
    while started < instances and (placement := scheduler.place(books, 1.0)) is not None:
        work = books.queued(placement.request_id)
        work.placement, work.is_prefilled, work.is_handed_over = placement, True, True
        work.encoded.update(range(len(work.media)))
        books.note(work)
        started += 1
    return scheduler, books


def placements(scheduler: Scheduler, books: Books, most: int) -> tuple[list[float], list[float]]:
    place, note = [], []
    for _ in range(most):
        start_s = time.perf_counter()
        placement = scheduler.place(books, 2.0)
        place.append(time.perf_counter() - start_s)
        if placement is None:
            break
        work = books.queued(placement.request_id)
        work.placement = placement
        note.append(timed(partial(books.note, work)))
    return place, note


def request(profile: Profile, number: int, arrival_s: float) -> Work:
    """Every second one has a picture."""
    media: tuple[MediaWork, ...] = ()
    prompt = 150
    if number % 2:
        media = (MediaWork(PICTURE_TOKENS, 522_904, profile.encode.encode_s(PICTURE_TOKENS)),)
        prompt += PICTURE_TOKENS
    return Work(
        f"r{number}", arrival_s, prompt, 64, profile.step.prefill_s(prompt, profile.chunk_tokens), media
    )


def timed(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
