"""Books, work and a profile for policy tests; numbers are round, not those of a real device."""

from __future__ import annotations

from itertools import accumulate

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.plan import Assignment
from coordinator.policy.work import MediaWork, Work
from core.costs import EncodeCosts, MoveCosts, StepCosts, StepTerm
from core.profile import MediaRule, Profile
from core.stages import ModalityGroup, parse_roles

# A step moves the weights in 8 ms, and a thousand tokens' arithmetic takes 50 ms.
PROFILE = Profile(
    name="test",
    model="test-7b",
    device="test",
    parallelism="tp1",
    origin="derived",
    sources=("round numbers",),
    step=StepCosts(
        fixed_s=0.002,
        bytes=StepTerm(base_s=0.008, per_context_token_s=4e-8),
        flops=StepTerm(per_new_token_s=5e-5, per_attended_s=1e-9),
    ),
    encode=EncodeCosts(fixed_s=0.005, per_token_s=1e-4, per_pixel_s=1e-8),
    kv_move=MoveCosts(setup_s=0.003, bytes_per_s=2e10),
    embedding_move=MoveCosts(setup_s=0.002, bytes_per_s=2e10),
    media=MediaRule("patches", 28),
    kv_bytes_per_token=57344,
    embedding_bytes_per_token=7168,
    kv_tokens=160_000,
    embedding_tokens=32_000,
    block_tokens=16,
    chunk_tokens=2048,
    max_sequences=256,
)


def instance(
    name: str,
    roles: str = "epd",
    group: str = "shared",
    kv_blocks: int = 10_000,
    max_sequences: int | None = None,
) -> InstanceBook:
    return InstanceBook(name, parse_roles(roles), ModalityGroup(group), 16, kv_blocks, 2000, max_sequences)


def books_of(*instances: InstanceBook) -> Books:
    books = Books()
    for each in instances:
        books.add_instance(each)
    return books


def text(name: str, at_s: float = 0.0, prompt: int = 200, output: int = 100, priority: int = 0) -> Work:
    seconds = PROFILE.step.prefill_s(prompt, PROFILE.chunk_tokens)
    return Work(name, at_s, prompt, output, seconds, priority=priority)


def pictures(name: str, at_s: float = 0.0, sizes: tuple[int, ...] = (1000,), output: int = 100) -> Work:
    ends = accumulate(sizes)
    media = tuple(
        MediaWork(size, size * 784, PROFILE.encode.encode_s(size), end)
        for size, end in zip(sizes, ends, strict=True)
    )
    prompt = 50 + sum(sizes)
    return Work(name, at_s, prompt, output, PROFILE.step.prefill_s(prompt, PROFILE.chunk_tokens), media)


def applied(books: Books, assignments: dict[str, Assignment], now_s: float = 0.0) -> None:
    """Every instance plays at once what was wanted."""
    for name, wanted in assignments.items():
        books.set_roles(name, wanted.roles, wanted.group, now_s)
