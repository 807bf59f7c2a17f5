"""A scenario file: which clusters, policy sets and workloads are compared, and by which targets."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

from coordinator.policy.reconciler import DEADLINE_S
from coordinator.policy.scheduler import LATE_WAIT_S, Slo
from core.encode_order import SLICE_S
from core.profile import Profile, ProfileError
from core.profile_file import load_profile
from core.record import RecordError
from simulator.config import Discipline, Encoding
from simulator.records import decode_partly
from simulator.schedulers import check_policy
from simulator.variants import Variant
from simulator.workload.errors import WorkloadError
from simulator.workload.spec import WorkloadSpec

_BASELINES = ("coupled", "replicas")
MOST_INSTANCES = 10_000
MOST_REFINE_STEPS = 20  # the bracket of a search is a millionth then


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The same for every policy set: equal hardware."""

    instances: int
    switch_s: float = 0.1  # under the reconciler's deadline, or no switch would ever end
    control_s: float = 0.001
    encode_slice_s: float = SLICE_S
    media_workers: int = 2


@dataclass(frozen=True, slots=True)
class SetSpec:
    """A policy set and the engine under it; `discipline` None is what sets of its policy have."""

    name: str
    policy: str = ""  # a name of coordinator.policy.sets; empty: the same as `name`
    without: tuple[str, ...] = ()  # pieces switched off, for ablation
    late_wait_s: float = LATE_WAIT_S  # for so long those yield who are late in any case
    discipline: Discipline | None = None
    encoder_cache: bool = False
    prefix_cache: bool = False
    unified_cache: bool = False  # one for both, over all instances, that policies know of
    encoding: Encoding = "pipelined"
    variants: tuple[str, ...] = ()  # in which it is run, unless asked for; empty: in all
    seeds: tuple[int, ...] = ()  # likewise; empty: the scenario's

    @property
    def policy_name(self) -> str:
        return self.policy or self.name

    @property
    def engine_discipline(self) -> Discipline:
        """Baselines are served first come, first served, as servers in the field do."""
        return self.discipline or ("chunked" if self.policy_name in _BASELINES else "text-first")


@dataclass(frozen=True, slots=True)
class Target:
    """Absolute seconds at scale 1."""

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """A model on a device under a workload, and its targets by the workload's sources."""

    name: str
    profile: str
    workload: WorkloadSpec
    slo: dict[str, Target]
    rates_rps: tuple[float, ...] = ()  # empty: the scenario's
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """A published figure that ours is put beside."""

    case: str
    measure: str  # "ttft" or "goodput"
    value: float  # how many times better the set is than the one it is compared with
    better: str  # name of a set
    worse: tuple[str, ...]  # names of sets; the best of them counts
    source: str


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    cluster: ClusterSpec
    sets: tuple[SetSpec, ...]
    cases: tuple[CaseSpec, ...]
    rates_rps: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (1,)
    attainment: float = 0.9  # share of requests that must meet their targets for a rate to count
    scales: tuple[float, ...] = (1.0,)  # of the targets
    refine_steps: int = 4  # halvings of the bracket in which the best rate lies
    variants: tuple[Variant, ...] = field(default_factory=lambda: (Variant("as is"),))
    references: tuple[Reference, ...] = ()

    def rates(self, case: CaseSpec) -> tuple[float, ...]:
        return case.rates_rps or self.rates_rps


def read_scenario(path: Path) -> Scenario:
    """Raises ScenarioError naming the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: is no TOML (not UTF-8)") from None
    except (RecursionError, ValueError) as error:  # ValueError: also of a number of thousands of digits
        raise ScenarioError(f"{path}: is no TOML ({error})") from None
    try:
        scenario = decode_partly(Scenario, table)
        _check(scenario, path)
    except RecordError as error:
        raise ScenarioError(f"{path}: {error}") from None
    return scenario


def narrowed(scenario: Scenario, rates_rps: Sequence[float], scales: Sequence[float]) -> Scenario:
    """With these rates, of all cases and variants, and these scales; empty means as it is.

    Raises ScenarioError for one that is not positive and finite.
    """
    for name, values in (("rate", rates_rps), ("scale", scales)):
        for value in values:
            if not 0 < value < inf:
                raise ScenarioError(f"{name}: should be a finite number above zero, is {value:g}")
    if rates_rps:
        cases = tuple(replace(case, rates_rps=()) for case in scenario.cases)
        variants = tuple(replace(variant, rates_rps=()) for variant in scenario.variants)
        rates = tuple(sorted(set(rates_rps)))
        scenario = replace(scenario, rates_rps=rates, cases=cases, variants=variants)
    if scales:
        variants = tuple(replace(variant, scales=()) for variant in scenario.variants)
        scenario = replace(scenario, scales=tuple(scales), variants=variants)
    return scenario


def case_profile(case: CaseSpec, folder: Path) -> Profile:
    """A shipped profile by name, or a file relative to the scenario's folder. Raises ProfileError."""
    is_path = case.profile.endswith(".json")
    return load_profile(folder / case.profile if is_path else case.profile)


def aims(case: CaseSpec) -> Slo:
    """What the policies of the cluster aim for: of each modality and of the answers, the strictest target."""
    texts = [each.ttft_s for source, each in case.slo.items() if source == "text"]
    pictures = [each.ttft_s for source, each in case.slo.items() if source != "text"]
    return Slo(
        ttft_s=min(texts or pictures),
        tpot_s=min(each.tpot_s for each in case.slo.values()),
        multimodal_ttft_s=min(pictures, default=None),
    )


def _check(scenario: Scenario, path: Path) -> None:
    _check_names("sets", (each.name for each in scenario.sets))
    _check_names("cases", (each.name for each in scenario.cases))
    _check_names("variants", (each.name for each in scenario.variants))
    _positive("cluster.instances", scenario.cluster.instances)
    _at_most("cluster.instances", scenario.cluster.instances, MOST_INSTANCES)
    _at_most("refine_steps", scenario.refine_steps, MOST_REFINE_STEPS)
    _positive("cluster.media_workers", scenario.cluster.media_workers)
    _positive("cluster.encode_slice_s", scenario.cluster.encode_slice_s)
    if scenario.cluster.switch_s >= DEADLINE_S:
        problem = f"should be under {DEADLINE_S:g}: what takes longer is rolled back"
        raise RecordError("cluster.switch_s", f"{problem}, is {scenario.cluster.switch_s:g}")
    _positive("seeds", len(scenario.seeds))
    _positive("scales", len(scenario.scales))
    if not 0 < scenario.attainment <= 1:
        raise RecordError("attainment", f"should be over 0 and up to 1, is {scenario.attainment:g}")
    for at, scale in enumerate(scenario.scales):
        _positive(f"scales[{at}]", scale)
    for at, variant in enumerate(scenario.variants):
        for name in ("prefill_speed", "encode_speed", "bandwidth"):
            _positive(f"variants[{at}].{name}", getattr(variant, name))
        if not 0 <= (variant.text_share or 0.0) <= 1:
            raise RecordError(
                f"variants[{at}].text_share", f"should be from 0 to 1, is {variant.text_share:g}"
            )
        _check_fewer(f"variants[{at}].seeds", variant.seeds, scenario.seeds)
        _check_fewer(f"variants[{at}].scales", variant.scales, scenario.scales)
        for rate in variant.rates_rps:
            _positive(f"variants[{at}].rates_rps", rate)
        if list(variant.rates_rps) != sorted(set(variant.rates_rps)):
            raise RecordError(f"variants[{at}].rates_rps", "should rise")
    for at, each in enumerate(scenario.sets):
        _check_set(f"sets[{at}]", each)
        _check_fewer(f"sets[{at}].seeds", each.seeds, scenario.seeds)
        _check_fewer(f"sets[{at}].variants", each.variants, [variant.name for variant in scenario.variants])
    for at, case in enumerate(scenario.cases):
        _check_case(f"cases[{at}]", case, scenario, path)
    for at, reference in enumerate(scenario.references):
        _check_reference(f"references[{at}]", reference, scenario)


def _check_fewer(key: str, chosen: Sequence[object], there: Sequence[object]) -> None:
    for each in chosen:
        if each not in there:
            raise RecordError(key, f"{each!r} is none of the scenario's")


def _check_set(key: str, spec: SetSpec) -> None:
    try:
        check_policy(spec.policy_name, spec.without)
    except ValueError as error:
        raise RecordError(key, str(error)) from None
    _positive(f"{key}.late_wait_s", spec.late_wait_s)
    if spec.discipline == "whole" and spec.policy_name not in ("coupled", "replicas"):
        problem = '"whole" is for policies "coupled" and "replicas": it encodes in the prompt\'s pass'
        raise RecordError(f"{key}.discipline", problem)
    if spec.unified_cache and (spec.encoder_cache or spec.prefix_cache):
        raise RecordError(f"{key}.unified_cache", "is both caches in one: leave out the others")
    for name, is_set in (("unified_cache", spec.unified_cache), ("encoding", spec.encoding != "pipelined")):
        if is_set and spec.engine_discipline == "whole":
            raise RecordError(f"{key}.{name}", 'is not for discipline "whole"')


def _check_case(key: str, case: CaseSpec, scenario: Scenario, path: Path) -> None:
    rates = scenario.rates(case)
    if not rates:
        raise RecordError(f"{key}.rates_rps", "is empty, and so is the scenario's")
    for at, rate in enumerate(rates):
        _positive(f"{key}.rates_rps[{at}]", rate)
    if list(rates) != sorted(set(rates)):
        raise RecordError(f"{key}.rates_rps", "should rise")
    if not case.slo:
        raise RecordError(f"{key}.slo", "is empty")
    for source, target in case.slo.items():
        _positive(f"{key}.slo.{source}.ttft_s", target.ttft_s)
        _positive(f"{key}.slo.{source}.tpot_s", target.tpot_s)
    try:
        case.workload.check()
    except WorkloadError as error:
        name, _, problem = str(error).partition(": ")
        raise RecordError(f"{key}.workload.{name}", problem) from None
    workloads = [variant.workload(case.workload) for variant in scenario.variants]
    for source in sorted({each for workload in workloads for each in workload.sources()} - case.slo.keys()):
        raise RecordError(f"{key}.slo", f"has no targets for requests of source {source!r}")
    try:
        case_profile(case, path.parent)
    except ProfileError as error:
        raise RecordError(f"{key}.profile", str(error)) from None


def _check_reference(key: str, reference: Reference, scenario: Scenario) -> None:
    if reference.measure not in ("ttft", "goodput"):
        raise RecordError(f"{key}.measure", f"should be ttft or goodput, is {reference.measure!r}")
    if reference.case not in {case.name for case in scenario.cases}:
        raise RecordError(f"{key}.case", f"no case is named {reference.case!r}")
    for name in (reference.better, *reference.worse):
        if name not in {each.name for each in scenario.sets}:
            raise RecordError(key, f"no set is named {name!r}")
    _positive(f"{key}.value", reference.value)
    _positive(f"{key}.worse", len(reference.worse))


def _check_names(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for at, name in enumerate(names):
        if not name or name in seen:
            raise RecordError(f"{key}[{at}].name", "is empty" if not name else f"{name!r} stands there twice")
        seen.add(name)
    if not seen:
        raise RecordError(key, "is empty")


def _at_most(key: str, value: int, most: int) -> None:
    if value > most:
        raise RecordError(key, f"should be at most {most:,}, is {value:,}")


def _positive(key: str, value: float) -> None:
    if value <= 0:
        raise RecordError(key, f"should be more than zero, is {value:g}")
