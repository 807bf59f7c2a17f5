"""Plans in hindsight, on small clusters and workloads whose best schedule is plain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import hindsight
from benchmarks.plans.ascent import climb, screened, search, shortlists
from benchmarks.plans.family import coupled, family
from benchmarks.plans.phases import WINDOWS, Phase, phases_of, requests_of
from benchmarks.plans.scheduled import ScheduledForms
from benchmarks.plans.trial import GIVEN_UP, Score, Trial
from benchmarks.plans.watched import Watched
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.emp_dispatch import emp_dispatch
from coordinator.policy.forms import PD, E, Pool, assignments_of, candidates, forms_name
from coordinator.policy.plan import check_assignments
from coordinator.policy.scheduler import Slo
from core.profile_file import write_profile
from core.stages import COUPLED, ModalityGroup
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.scenario import CaseSpec, ClusterSpec, Scenario, SetSpec, Target
from simulator.workload.bursts import BurstSpec
from simulator.workload.mix import MixSpec
from simulator.workload.request import Request
from simulator.workload.spec import WorkloadSpec
from simulator.workload.trace import TraceSpec
from tests.simulator.clusters import picture, text
from tests.simulator.profiles import ROUND

SHARED, TEXT, MEDIA = ModalityGroup.SHARED, ModalityGroup.TEXT, ModalityGroup.MULTIMODAL
APART = {TEXT: (Pool(PD, 1),), MEDIA: (Pool(COUPLED, 1),)}
BURST = WorkloadSpec(MixSpec(duration_s=10.0), bursts=(BurstSpec("tokens", 5.0, 20.0, 1.0),))
SCENARIO = """
name = "small"
title = "A small one"
rates_rps = [1.0, 4.0, 16.0]
seeds = [1, 2]
refine_steps = 1
cluster.instances = 2
sets = [{ name = "coupled" }, { name = "emp" }]

[[cases]]
name = "one"
profile = "round.json"
slo.text = { ttft_s = 0.3, tpot_s = 0.1 }
slo.sharegpt-4o = { ttft_s = 1.0, tpot_s = 0.1 }
[cases.workload]
mix = { duration_s = 6.0, output_tokens = 4 }
bursts = [{ kind = "images", start_s = 2.0, duration_s = 3.0, factor = 2.0 }]
"""


def requests() -> list[Request]:
    """More text than one instance could bear; then little, beside pairs of pictures that encode for 0.2 s."""
    much = [text(f"a{at}", 2.0 + at / 80, 200, 1, source="text") for at in range(240)]
    little = [text(f"b{at}", 5.05 + at / 10, 200, 1, source="text") for at in range(80)]
    pairs = [picture(f"c{at}", 5.0 + at // 2, 1500, 2) for at in range(16)]
    return sorted((*much, *little, *pairs), key=lambda each: each.arrival_s)


@pytest.fixture
def trial() -> Trial:
    slo = {"text": Target(0.06, 1.0), "picture": Target(2.0, 1.0)}
    case, engine = CaseSpec("c", "", BURST, slo), SetSpec("emp")
    scenario = Scenario("s", "S", ClusterSpec(2, control_s=0.0), (engine,), (case,), (1.0,))
    return Trial(scenario, case, engine, ROUND, lambda _: requests())


def test_the_best_schedule_pools_text_and_parts_it_from_pictures(trial: Trial) -> None:
    best = search(trial, 1.0, shortlists(trial, 1.0))
    assert best.schedule[:2] == (coupled(2), APART)  # the third begins after the last request
    assert trial.score(best.schedule, 1.0).attained > 0.97
    assert trial.score(best.schedule, 1.0) > trial.score(best.constant, 1.0)
    assert trial.score(best.constant, 1.0) == max(trial.score((form,) * 3, 1.0) for form in family(2))


def test_the_search_climbs_until_not_enough_is_attained(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    attained = {1.0: 0.95, 1.03: 0.9, 1.0609: 0.8}
    monkeypatch.setattr(trial, "score", lambda *given: Score(attained[round(given[1], 6)], 0.0))
    assert [round(each.rate_rps, 6) for each in climb(trial, 1.0, 9.0)] == [1.0, 1.03, 1.0609]
    assert [round(each.rate_rps, 6) for each in climb(trial, 1.0, 1.01)] == [1.0, 1.03]


def test_a_phase_is_screened_alone(trial: Trial) -> None:
    assert screened(trial, 1.0, 0)[0] == coupled(2)
    assert screened(trial, 1.0, 1)[0] == APART
    assert screened(trial, 1.0, 1, ((100, 1),)) == [APART, coupled(2)]


def test_a_schedule_is_run_once(trial: Trial) -> None:
    first = trial.score((coupled(2), APART, APART), 1.0)
    assert trial.score((coupled(2), APART, APART), 1.0) is first
    assert trial.num_runs == 1


def test_a_run_that_falls_behind_is_given_up_and_changes_no_choice(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, shortlist = search(trial, 1.0, shortlists(trial, 1.0)), screened(trial, 1.0, 1)
    assert trial.num_given_up > 0
    monkeypatch.setattr(Watched, "_miss", lambda *_: None)
    patient = Trial(
        trial.scenario, trial.scenario.cases[0], trial.scenario.sets[0], ROUND, lambda _: requests()
    )
    assert search(patient, 1.0, shortlists(patient, 1.0)) == found
    assert screened(patient, 1.0, 1) == shortlist
    assert patient.num_given_up == 0


def test_what_was_given_up_is_run_to_its_end_where_less_will_do(trial: Trial) -> None:
    schedule = (APART,) * 3
    assert trial.score(schedule, 1.0, 0.99) is GIVEN_UP
    assert trial.score(schedule, 1.0, 0.995) is GIVEN_UP
    assert trial.num_runs == 1
    exact = trial.score(schedule, 1.0)
    assert 0 < exact.attained < 0.99
    assert trial.score(schedule, 1.0, exact.attained) is exact
    assert trial.num_runs == 2


def test_what_attains_just_enough_is_not_given_up(trial: Trial) -> None:
    exact = trial.part_score(APART, 1.0, 0, 100)
    assert 0 < exact.attained < 1
    assert trial.part_score(APART, 1.0, 0, 100, exact.attained) == exact
    assert trial.part_score(APART, 1.0, 0, 100, exact.attained + 0.01) is GIVEN_UP


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_family_has_every_form_once_and_each_could_serve(count: int) -> None:
    forms = family(count)
    assert forms[0] == coupled(count)
    assert len({forms_name(each) for each in forms}) == len(forms)
    for each in forms:
        assert sum(assignments_of(each).values()) == count
        check_assignments(assignments_of(each))
    names = {forms_name(each) for each in forms}
    assert {forms_name({SHARED: form}) for form in candidates(count, (0.2, 0.5, 0.3), False)} <= names


def test_the_family_of_eight_has_309() -> None:
    assert len(family(8)) == 309


def test_roles_change_at_the_given_times_and_as_few_as_can_be() -> None:
    decisions = DecisionRing()
    forms = [{SHARED: (Pool(E, 1), Pool(PD, 3))}, {SHARED: (Pool(E, 2), Pool(PD, 2))}, coupled(4)]
    dispatch = emp_dispatch(Costing(CostModel(ROUND)), Slo(1.0, 0.1), decisions)
    scheduler = ScheduledForms([0.0, 2.0, 4.1], forms, dispatch, decisions)
    workload = [text(f"r{at}", 0.1 * at) for at in range(60)]
    result = Cluster(ClusterConfig(4, ROUND), scheduler, workload).run()
    assert result.num_switches == 1 + 4
    ends = [span.end_s for span in result.spans if span.assignment in ("shared:e", "shared:pd")]
    assert sum(2.0 <= end_s < 2.25 for end_s in ends) == 1
    assert sum(4.25 <= end_s < 4.5 for end_s in ends) == 4  # the first tick after 4.1 s, and what has to end
    assert [each.numbers["changes"] for each in decisions.about("cluster")] == [4.0, 1.0, 4.0]


def test_phases_lie_between_the_edges_of_bursts() -> None:
    bursts = (BurstSpec("images", 10.0, 5.0, 2.0), BurstSpec("tokens", 12.0, 8.0, 2.0))
    phases = phases_of(WorkloadSpec(MixSpec(), bursts=bursts), requests(), ROUND)
    assert [(each.start_s, each.is_burst) for each in phases] == [
        (0.0, False),
        (10.0, True),
        (12.0, True),
        (15.0, True),
        (20.0, False),
    ]


def test_a_trace_has_windows_and_those_with_much_work_are_bursts() -> None:
    found = phases_of(WorkloadSpec(trace=TraceSpec("azure-llm", "t.csv")), requests(), ROUND)
    assert len(found) == WINDOWS
    assert [each.is_burst for each in found] == [False] * 2 + [True] * 3 + [False] * 7
    parts = [requests_of(found, at, requests()) for at in range(WINDOWS)]
    assert [each for part in parts for each in part] == requests()


def test_a_steady_mix_is_one_phase() -> None:
    assert phases_of(WorkloadSpec(MixSpec()), requests(), ROUND) == (Phase(0.0, False),)


def test_the_command_compares_sets_with_hindsight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_profile(ROUND, tmp_path / "round.json")
    (tmp_path / "small.toml").write_text(SCENARIO)
    written = []
    for jobs in ("1", "2"):
        arguments = [str(tmp_path / "small.toml"), "--case", "one", "--jobs", jobs]
        hindsight.main([*arguments, "--json", str(tmp_path / "out.json")])
        written.append((capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())))
    assert written[0] == written[1]
    out, found = written[0]
    assert [row["seed"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert row["beside_rps"].keys() == {"coupled", "emp"}
        assert row["from_rps"] == max(row["beside_rps"].values())
        assert [start_s for start_s, _ in row["schedule"]["phases"]] == [0.0, 2.0, 5.0]
        assert row["best_rps"] > 0
        assert row["emp_share"] == pytest.approx(row["beside_rps"]["emp"] / row["best_rps"])
    assert "emp/best" in out
    assert "from 2 s" in out
