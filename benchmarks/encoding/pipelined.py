"""One request of several large pictures: prefill while others are encoded, against all before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.elasticity.pictures import gradient
from benchmarks.encoding.ideal import ideal_ttft_s, share_of_saving
from benchmarks.load.setups import Setup, running
from cli.launch.plan import LaunchPlan
from core.profile import Profile
from core.profile_file import load_profile, write_profile
from elasticmm_client import Client, user_message

NUM_PICTURES = 6
RATIOS = (0.25, 0.5, 1.0)
EMULATED_PX = (1288, 728)
COMPUTED_PX = (448, 448)
WAYS = ("pipelined", "blocking")
_WARM_UP = 2
_TEXT = "What do these pictures have in common?"


@dataclass(frozen=True, slots=True)
class Run:
    """One request alone, seconds since it arrived."""

    ttft_s: float
    encoded_s: tuple[float, ...]  # when each embedding was at the prefill instance


@dataclass(frozen=True, slots=True)
class Saving:
    """Medians over rounds, seconds."""

    case: str
    encode_s: float  # between two pictures of one encoder
    prefill_s: float  # of all pictures
    blocking_s: float  # to the first token, as the next two
    ours_s: float
    ideal_s: float

    @property
    def share(self) -> float:
        return share_of_saving(self.blocking_s, self.ours_s, self.ideal_s)


def with_ratio(profile: Profile, ratio: float, px: tuple[int, int], num_pictures: int) -> Profile:
    """The profile with encodes so fast that a picture's prefill takes `ratio` times as long as its encode."""
    num_tokens = profile.media.media_tokens(*px)
    prefill_s = profile.prefill_s(0, num_tokens * num_pictures) / num_pictures
    factor = prefill_s / ratio / profile.encode.encode_s(num_tokens)
    return replace(profile, encode=profile.encode.scaled(factor))


def emulated(plan: LaunchPlan, profile: str, ratio: float, rounds: int, folder: Path) -> Saving:
    """Two encoders, one instance that prefills and one that decodes."""
    path = folder / f"ratio-{ratio:g}.json"
    write_profile(with_ratio(load_profile(profile), ratio, EMULATED_PX, NUM_PICTURES), path)
    placed = replace(plan, devices=(f"emulated:{path}",), profile=str(path))
    case = _Case(f"emulated, prefill/encode {ratio:g}", "e2p1d1", EMULATED_PX, num_encoders=2)
    return _measure(case, placed, rounds)


def computed(plan: LaunchPlan, rounds: int) -> Saving:
    """An instance that encodes and one that does the rest, a core each where there are two."""
    return _measure(_Case("computed", "e1pd1", COMPUTED_PX, num_encoders=1), plan, rounds)


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    topology: str
    px: tuple[int, int]
    num_encoders: int


def _measure(case: _Case, plan: LaunchPlan, rounds: int) -> Saving:
    """Alternates between two clusters that differ in nothing else."""
    numbers = count()
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        clients = {way: stack.enter_context(_client(plan, case.topology, way)) for way in WAYS}
        for number in range(_WARM_UP + rounds):
            for way, client in clients.items():
                run = _ask(client, case.px, numbers)
                if number >= _WARM_UP:
                    runs[way].append(run)
    return _saving(case, runs["pipelined"], runs["blocking"])


@contextmanager
def _client(plan: LaunchPlan, topology: str, way: str) -> Iterator[Client]:
    setup = Setup(way, topology, (("encoding", way),))
    with running(setup, plan) as endpoint, Client(endpoint.address) as client:
        yield client


def _ask(client: Client, px: tuple[int, int], numbers: Iterator[int]) -> Run:
    pictures = [gradient(*px, next(numbers)) for _ in range(NUM_PICTURES)]
    result = client.generate([user_message(_TEXT, *pictures)], max_tokens=2, ignore_eos=True).result()
    assert result.ttft_ms is not None
    encoded = sorted(span.end_ms / 1e3 for span in result.stages if span.stage == "encode")
    assert len(encoded) == NUM_PICTURES
    return Run(result.ttft_ms / 1e3, tuple(encoded))


def _saving(case: _Case, ours: Sequence[Run], blocking: Sequence[Run]) -> Saving:
    """Encode and prefill times are those of the runs that wait: nothing else runs beside them there."""
    encoded = [median(run.encoded_s[place] for run in blocking) for place in range(NUM_PICTURES)]
    blocking_s = median(run.ttft_s for run in blocking)
    prefill_s = blocking_s - encoded[-1]
    return Saving(
        case=case.name,
        encode_s=encoded[-1] * case.num_encoders / NUM_PICTURES,
        prefill_s=prefill_s,
        blocking_s=blocking_s,
        ours_s=median(run.ttft_s for run in ours),
        ideal_s=ideal_ttft_s(encoded, prefill_s),
    )
