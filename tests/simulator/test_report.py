from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.lifecycle import RequestState
from simulator.cache_counts import CacheCounts
from simulator.metrics import summarize
from simulator.report import best, compare, points, spared
from simulator.result import RequestRecord, RunResult
from simulator.scenario import Scenario, Target, narrowed
from simulator.sweep import Outcome, tasks
from simulator.unloaded import unloaded_targets
from simulator.usage import Usage
from simulator.variants import Variant
from tests.simulator.profiles import ROUND
from tests.simulator.test_scenario import read


def outcome(
    policy_set: str, ttft_s: float, best_rps: float, seed: int = 1, variant: str = "as is"
) -> Outcome:
    record = RequestRecord(
        "a", "text", False, RequestState.FINISHED, 100, 11, 0.0, 0.0, None, ttft_s, ttft_s + 1, 0, 0
    )
    result = RunResult((record,), (), {"i0": Usage()}, 1.0, 1, seed, 0, CacheCounts(3, 2, seed, 800))
    runs = tuple(summarize(result, rate, {"text": Target(1.0, 1.0)}) for rate in (1.0, 2.0))
    return Outcome("one", variant, policy_set, seed, runs, {1.0: best_rps})


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return read(tmp_path)


def test_points_are_means_over_seeds() -> None:
    rows = points([outcome("coupled", 0.2, 1.0), outcome("coupled", 0.4, 1.0, 2)], lambda _: (1.0, 2.0, 3.0))
    assert [(row.rate_rps, row.source) for row in rows] == [
        (1.0, "all"),
        (1.0, "text"),
        (2.0, "all"),
        (2.0, "text"),  # the third rate was not run
    ]
    assert rows[0].ttft_p50_s == pytest.approx(0.3)
    assert rows[0].num_switches == pytest.approx(1.5)


def test_what_caches_spared_is_a_mean_over_seeds() -> None:
    (row, _) = spared([outcome("coupled", 0.2, 1.0), outcome("coupled", 0.4, 1.0, 2)], lambda _: (1.0, 2.0))
    counts = row.encoder_hits, row.skipped_encodes, row.prefix_hit_tokens, row.pulled_bytes
    assert counts == (3, 2, 1.5, 800)


def test_best_gives_mean_and_range() -> None:
    (row,) = best([outcome("coupled", 0.2, 4.0), outcome("coupled", 0.2, 6.0, 2)])
    assert (row.mean_rps, row.least_rps, row.most_rps) == (5.0, 4.0, 6.0)


def test_published_figures_stand_beside_the_range_over_variants(scenario: Scenario) -> None:
    runs = [outcome("coupled", 0.4, 2.0), outcome("halves", 0.1, 3.0)]
    runs += [outcome("coupled", 0.4, 2.0, variant="fast"), outcome("halves", 0.1, 5.0, variant="fast")]
    (row,) = compare(scenario, runs)
    assert (row.ours, row.least, row.most, row.is_inside) == (1.5, 1.5, 2.5, True)
    ttft = replace(scenario, references=(replace(scenario.references[0], measure="ttft", value=9.0),))
    (row,) = compare(ttft, runs)
    assert row.ours == pytest.approx(4.0)
    assert row.is_inside is False
    assert compare(scenario, runs[:1]) == []


def test_tasks_come_in_order_and_by_name(scenario: Scenario, tmp_path: Path) -> None:
    todo = tasks(scenario, tmp_path, tmp_path, seeds=(1, 2))
    assert [(task.policy_set.name, task.seed) for task in todo] == [
        ("coupled", 1),
        ("coupled", 2),
        ("halves", 1),
        ("halves", 2),
    ]
    with pytest.raises(ValueError, match="variant: 'slow' is not in the scenario"):
        tasks(scenario, tmp_path, tmp_path, variants=("slow",))


def test_sets_and_variants_may_ask_for_fewer_runs(scenario: Scenario, tmp_path: Path) -> None:
    coupled, halves = scenario.sets
    fewer = replace(
        scenario,
        sets=(coupled, replace(halves, variants=("as is",), seeds=(1,))),
        seeds=(1, 2),
        scales=(1.0, 2.0),
        variants=(Variant("as is"), Variant("slow", seeds=(2,), scales=(1.0,), rates_rps=(3.0,))),
    )
    todo = tasks(fewer, tmp_path, tmp_path)
    assert [(each.variant.name, each.policy_set.name, each.seed) for each in todo] == [
        ("as is", "coupled", 1),
        ("as is", "coupled", 2),
        ("as is", "halves", 1),
        ("slow", "coupled", 2),
    ]
    last = todo[-1]
    assert (last.scenario.scales, last.scenario.rates(last.case)) == ((1.0,), (3.0,))
    asked = tasks(narrowed(fewer, (5.0,), (2.0,)), tmp_path, tmp_path, variants=("slow",), seeds=(7,))
    assert [(each.policy_set.name, each.seed) for each in asked] == [("coupled", 7), ("halves", 7)]
    assert (asked[0].scenario.scales, asked[0].scenario.rates(asked[0].case)) == ((2.0,), (5.0,))


def test_a_variant_that_a_set_was_not_run_in_does_not_count(scenario: Scenario) -> None:
    runs = [outcome("coupled", 0.4, 2.0), outcome("halves", 0.1, 3.0)]
    (row,) = compare(scenario, [*runs, outcome("coupled", 0.4, 2.0, variant="fast")])
    assert (row.ours, row.least, row.most) == (1.5, 1.5, 1.5)


def test_a_scale_that_a_variant_was_not_run_at_does_not_count(scenario: Scenario) -> None:
    runs = [outcome("coupled", 0.4, 2.0), outcome("halves", 0.1, 3.0)]
    assert compare(replace(scenario, scales=(1.0, 2.0)), runs)[0].ours == pytest.approx(1.5)


def test_unloaded_targets_leave_bursts_out(scenario: Scenario, tmp_path: Path) -> None:
    folders = (tmp_path, tmp_path)
    found = unloaded_targets(scenario, scenario.cases[0], scenario.sets[0], folders, times=10.0)
    assert found["text"].tpot_s == pytest.approx(0.11)
    assert found["sharegpt-4o"].ttft_s > 10 * 0.05


def test_a_variant_scales_speeds_and_nothing_else() -> None:
    slow = Variant("slow", prefill_speed=0.5, encode_speed=0.25, bandwidth=0.1).profile(ROUND)
    assert slow.step.flops.per_new_token_s == pytest.approx(2e-4)
    assert slow.step.bytes.base_s == pytest.approx(0.1)
    assert slow.step.fixed_s == ROUND.step.fixed_s
    assert slow.encode.encode_s(200) == pytest.approx(4 * ROUND.encode.encode_s(200))
    assert slow.encode.per_pixel_s == ROUND.encode.per_pixel_s
    assert slow.kv_move.bytes_per_s == pytest.approx(1e8)
    assert Variant("as is").profile(ROUND) == ROUND
