"""The search for best rates: which runs it asks for, on which traces, and what it keeps."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import best_rates
from benchmarks.best_rates import Bench, parse_args, turns
from benchmarks.rates.book import LIVE, SIMULATED, Book, Run, Search, read_book
from benchmarks.rates.found import best_of, mean_figures, ratio
from benchmarks.rates.report import figures_table, rates_table
from benchmarks.rates.search import bracket, next_place
from benchmarks.rates.slowed import simulate_slowed, with_slow
from benchmarks.rates.traces import grid, traces
from simulator.scenario import read_scenario
from simulator.workload.spec import WorkloadSpec
from simulator.workload.trace import TraceSpec

SCENARIO = read_scenario(Path("scenarios/emulated.toml"))
CASES = {each.name: each for each in SCENARIO.cases}
SETS = {each.name: each for each in SCENARIO.sets}
SEARCH = Search("image-burst", 1, "emp")
DATA = Path("tests/simulator/workload/samples")


def searched(last: int, guess: int, count: int) -> tuple[int, list[int]]:
    """Where the search ends if `last` is the last place that attains enough, and what it ran."""
    attained: dict[int, bool] = {}
    while (place := next_place(attained, guess, count)) is not None:
        assert place not in attained
        attained[place] = place <= last
    return bracket(attained, count)[0], list(attained)


@pytest.mark.parametrize("guess", [-1, 0, 13, 29, 40])
def test_the_search_ends_at_the_last_rate_that_will_do(guess: int) -> None:
    for last in range(-1, 30):
        found, ran = searched(last, guess, 30)
        assert found == last
        assert len(ran) <= 10


def test_a_good_guess_costs_few_runs() -> None:
    assert searched(13, 13, 30) == (13, [13, 14])
    assert searched(12, 13, 30) == (12, [13, 12])
    assert searched(14, 13, 30) == (14, [13, 14, 16, 15])
    assert searched(10, 13, 30)[1] == [13, 12, 10, 11]


def test_rates_are_five_percent_apart_up_to_the_highest() -> None:
    rates = grid(4.0, 100.0)
    assert rates[-1] == 100.0
    assert 4.0 <= rates[0] < 4.2
    assert all(high / low == pytest.approx(1.05) for low, high in itertools.pairwise(rates))


def test_a_lower_rate_has_some_of_the_requests_of_a_higher_one() -> None:
    rising = traces(CASES["image-burst"], Path(), [10.0, 20.0, 40.0], seed=1)
    few, more, most = (rising.at(place) for place in range(3))
    assert {each.request_id for each in few} < {each.request_id for each in more}
    assert {each.request_id for each in more} < {each.request_id for each in most}
    assert len(few) == pytest.approx(len(most) / 4, rel=0.2)
    assert [each.arrival_s for each in more] == sorted(each.arrival_s for each in more)
    assert few == traces(CASES["image-burst"], Path(), [10.0, 20.0, 40.0], seed=1).at(0)
    in_burst = [each for each in most if 7 <= each.arrival_s < 12]
    assert len(in_burst) / 5 == pytest.approx(160, rel=0.1)


def test_a_trace_from_a_file_has_the_same_requests_at_every_rate() -> None:
    spec = WorkloadSpec(trace=TraceSpec("azure-llm", "llm.csv"))
    case = replace(CASES["image-burst"], workload=spec)
    slow, fast = (traces(case, DATA, [10.0, 20.0], seed=1).at(place) for place in (0, 1))
    assert len(slow) == len(fast) == 3
    assert slow[-1].arrival_s > 0
    for one, other in zip(slow, fast, strict=True):
        assert replace(one, arrival_s=0.0) == replace(other, arrival_s=0.0)
        assert one.arrival_s == pytest.approx(2 * other.arrival_s)


def test_slowed_coupled_devices_give_the_trace_the_same_figures() -> None:
    """They have no time of their own, but for what a dispatch takes, which is the host's.

    Costs that are learned differ in the seventh digit, so of more requests some would go elsewhere.
    """
    trace = traces(CASES["image-burst"], Path(), [6.0, 100.0], seed=1).at(0)
    scenario = replace(SCENARIO, cluster=replace(SCENARIO.cluster, control_s=0.0))
    once, slow = (
        simulate_slowed(scenario, CASES["image-burst"], SETS["coupled"], trace, by).outcomes
        for by in (1.0, 4.0)
    )
    by_index = {each.index: each for each in slow}
    assert len(once) == len(by_index) == len(trace)
    for each in once:
        assert by_index[each.index].ttft_s == pytest.approx(each.ttft_s, rel=1e-6)
        assert by_index[each.index].tpot_s == pytest.approx(each.tpot_s, rel=1e-6)


def test_slowed_policies_keep_their_time() -> None:
    """A trace that is over before emp has settled is borne in the form it starts with; slowed, it is not."""
    case, rates = CASES["image-burst"], [14.0, 100.0]
    calm = [each for each in traces(case, Path(), rates, seed=1).at(0) if each.arrival_s < 3]
    fast, slow = (simulate_slowed(SCENARIO, case, SETS["emp"], calm, by) for by in (1.0, 10.0))
    assert fast.num_switches == 0 < slow.num_switches
    assert with_slow(case, 6.0).slo["text"].tpot_s == pytest.approx(0.18)


def run_at(place: int, attained: float, side: str = LIVE, search: Search = SEARCH, **more: Any) -> Run:
    return Run(search, side, place, 10.0 + place, attained, {"good_share": attained, "failed": 0, **more})


def test_the_best_rate_is_below_the_first_that_fails() -> None:
    runs = {each.place: each for each in (run_at(3, 0.95), run_at(4, 0.89), run_at(5, 0.91))}
    found = best_of(runs, 0.9, 30)
    assert found is not None
    assert (found.rate_rps, found.is_least) == (13.0, False)
    assert best_of({4: runs[4]}, 0.9, 30) is None
    higher = best_of({3: runs[3]}, 0.9, 30)
    assert higher is not None
    assert higher.is_least
    assert higher.words == "13.0 or more"


def test_a_book_is_read_again_and_one_of_other_targets_is_not(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    book = Book({"time_scale": 3.0, "cases": {"image-burst": (1, 2)}}, [run_at(3, 0.95), run_at(4, 0.8)])
    book.write(path, command="python")
    assert read_book(path, book.about).runs == book.runs
    assert json.loads(path.read_text())["command"] == "python"
    with pytest.raises(ValueError, match="resume: .* is of another time_scale"):
        read_book(path, {"time_scale": 2.0})
    path.write_text("{}")
    with pytest.raises(ValueError, match="resume: .* has no runs"):
        read_book(path, book.about)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("emulated",), "model"),
        (("simulated", "--resume"), "resume"),
        (("simulated", "--case", "servegen"), "data"),
        (("simulated", "--case", "none"), "case"),
        (("simulated", "--policy", "none"), "policy"),
        (("simulated", "--time-scale", "0"), "time-scale"),
    ],
)
def test_a_wrong_option_is_named(words: tuple[str, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Bench(parse_args(list(words)))


def test_sets_take_turns_until_each_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a cluster that bears what the simulator says and no more, and a resumed file asks for no run."""
    words = ["emulated", "--model", "M", "--case", "image-burst", "--json", str(tmp_path / "runs.json")]
    bears = {"replicas": 20, "emp": 30}

    def run(bench: Bench, search: Search, side: str, place: int) -> None:
        share = 1.0 if place <= bears[search.policy_set] else 0.5
        bench._note(search, side, place, {"good_share": share, "failed": 0, "switches": 0})

    monkeypatch.setattr(
        Bench, "simulate", lambda self, search: run(self, search, SIMULATED, bears[search.policy_set])
    )
    monkeypatch.setattr(Bench, "play", lambda self, search, place: run(self, search, LIVE, place))
    monkeypatch.setattr("sys.argv", ["best_rates", *words])
    assert best_rates.main() == 0

    bench = Bench(parse_args([*words, "--resume"]))
    order = [(each.search.seed, each.search.policy_set) for each in bench.book.runs if each.side == LIVE]
    assert order == [(seed, name) for seed in range(1, 6) for name in ("replicas", "emp") * 2]
    rates = bench.rates(CASES["image-burst"])
    assert [each[LIVE] for each in bench.best()[:2]] == [rates[20], rates[30]]
    assert [list(turns(bench, seed, float("inf"))) for seed in range(1, 6)] == [[]] * 5
    assert list(turns(bench, 6, 0.0)) == []


def test_tables_and_ratios() -> None:
    others = [replace(SEARCH, policy_set="replicas"), replace(SEARCH, seed=2)]
    found = [
        {
            "case": each.case,
            "seed": each.seed,
            "set": each.policy_set,
            LIVE: live,
            SIMULATED: 10.0,
            "is_least": False,
            "figures": {"good_share": 0.9, "ttft_ms": {"p50": live}},
        }
        for each, live in zip((SEARCH, *others), (20.0, 10.0, 40.0), strict=True)
    ]
    assert ratio(found, LIVE, "image-burst", "emp", "replicas") == 2.0
    assert ratio(found, LIVE, "image-burst", "emp", "coupled") is None
    assert mean_figures(found, "image-burst", "emp")[1]["ttft_ms.p50"] == 30.0
    assert rates_table(found).row_count == 3
    assert [each.header for each in figures_table(found, "image-burst").columns][1:] == ["emp", "replicas"]
