"""A second policy set, in a trial or in the shadow, as the page has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.policy.decisions import Decision
from coordinator.policy.seat import Arm
from coordinator.policy.trials.shadow import DIFFERENCE
from coordinator.policy.trials.shares import TrialWish
from tests.coordinator.dashboard.test_dashboard import run_page, snapshot_of
from tests.coordinator.openai.conftest import HttpBench, MakeHttp


async def in_trial(make_http: MakeHttp) -> HttpBench:
    """Both arms have served requests of their own."""
    door: HttpBench = await make_http("epd", "epd", "epd", policy="emp", trial=TrialWish("coupled", 0.34))
    books = door.bench.coordinator.watch.arms
    for number in range(200):
        await door.bench.ask(text=f"question {number}", max_tokens=3)
        report = books.report()
        assert report is not None
        if all(arm.num_finished for arm in report.arms):
            break
    return door


async def in_shadow(make_http: MakeHttp) -> HttpBench:
    """Two requests went out, and one difference is kept."""
    door: HttpBench = await make_http("epd", "epd", policy="replicas", shadow="emp")
    for number in range(2):
        await door.bench.ask(text=f"question {number}", max_tokens=3)
    shadow = door.bench.coordinator.scheduler.shadow
    assert shadow is not None
    shadow.decisions.add(Decision(0.0, DIFFERENCE, "r", "the shadow would let it wait", {}))
    return door


async def test_a_snapshot_says_whose_instances_are(make_http: MakeHttp) -> None:
    door = await in_trial(make_http)
    decision = Decision(0.0, "search", "cluster", "splits", {}, Arm.B)
    door.bench.coordinator.scheduler.decisions.add(decision)
    snapshot = await snapshot_of(door)
    trial = snapshot["trial"]
    owners = {name: arm["arm"] for arm in trial["arms"] for name in arm["instances"]}
    assert sorted(owners.values()) == ["a", "a", "b"]
    assert {each["id"]: each["arm"] for each in snapshot["instances"]} == owners
    assert [arm["policy"] for arm in trial["arms"]] == ["emp", "coupled"]
    assert all(arm["good"] + arm["late"] + arm["slow"] for arm in trial["arms"])
    assert {each["name"]: each["a"] for each in trial["measures"]}["ttft_p50_s"] > 0
    assert snapshot["decisions"][-1]["arm"] == "b"
    assert snapshot["shadow"] is None


async def test_the_script_shows_both_arms_against_the_targets(make_http: MakeHttp, tmp_path: Path) -> None:
    door = await in_trial(make_http)
    snapshot = await snapshot_of(door)
    snapshot["trial"]["measures"] = [
        measure("attainment", 0.5, 0.75, 0.25, 0.125, 0.5),
        measure("ttft_p95_s", 1.5, 1.25, -0.25, -0.5, 0.125),
        measure("tpot_p95_s", 0.05, 0.075, 0.025, 0.0125, 0.05),
        measure("goodput_rps", 2.0, None, None, None, None),
    ]
    shown = await run_page(tmp_path, 200, snapshot)
    assert shown["sections"] == {"trial": True, "shadow": False}
    assert shown["trialAbout"].startswith("coupled (b) on 34% of the instances beside emp (a), for ")
    (_, policy_a, names_a, *_), (_, policy_b, *_) = shown["arms"][1:]
    assert (policy_a, policy_b) == ("emp", "coupled")
    assert len(names_a.split(", ")) == 2
    assert shown["measures"][1:] == [
        ["both targets met", "50.0%", "75.0%", "", "+25.0%", "+12.5% to +50.0%", "b is better"],
        [
            "first token, p95",
            "1.5 s",
            "1.3 s",
            "2.0 s",
            "\u2212250 ms",
            "\u2212500 ms to +125 ms",
            "not told apart",
        ],
        ["per token, p95", "50 ms", "75 ms", "100 ms", "+25 ms", "+13 ms to +50 ms", "a is better"],
        ["goodput", "2.00/s", "\u2013", "", "\u2013", "", "too little was measured"],
    ]
    assert shown["instances"][0][2] == "arm"


async def test_every_measure_has_its_words(make_http: MakeHttp, tmp_path: Path) -> None:
    door = await in_trial(make_http)
    snapshot = await snapshot_of(door)
    shown = await run_page(tmp_path, 200, snapshot)
    assert shown["trouble"] == ""
    assert len(shown["measures"]) == 1 + len(snapshot["trial"]["measures"]) == 1 + 8


async def test_what_the_shadow_decides_is_shown(make_http: MakeHttp, tmp_path: Path) -> None:
    door = await in_shadow(make_http)
    snapshot = await snapshot_of(door)
    shadow = snapshot["shadow"]
    assert (shadow["policy"], shadow["compared"] + shadow["skipped"]) == ("emp", 2)
    shadow |= {"compared": 10, "elsewhere": 2, "held": 1, "other_prefill": 2, "shadow_first_s": 0.25}
    shadow["wanted"] = [{"instance": "epd0", "acting": "shared:epd", "shadow": "text:d"}]
    shown = await run_page(tmp_path, 200, snapshot)
    assert shown["sections"] == {"trial": False, "shadow": True}
    assert shown["shadowAbout"].startswith("emp, for ")
    tiles = {name: (value, more) for name, value, more in shown["shadowTiles"]}
    assert tiles["dispatches that differ"][0] == "30.0%"
    assert tiles["would go elsewhere"] == ("2", "encode 0, prefill 2, decode 0")
    assert tiles["first token, as predicted"][0] == "250 ms"
    assert shown["wanted"][1:] == [["epd0", "shared:epd", "text:d"]]
    assert shown["shadowDecisions"][1][1:4] == ["difference", "r", "the shadow would let it wait"]
    assert "arm" not in shown["instances"][0]


async def test_without_a_second_set_nothing_of_it_is_shown(door: HttpBench, tmp_path: Path) -> None:
    snapshot = await snapshot_of(door)
    assert (snapshot["trial"], snapshot["shadow"]) == (None, None)
    shown = await run_page(tmp_path, 200, snapshot)
    assert shown["sections"] == {"trial": False, "shadow": False}


def measure(name: str, *figures: float | None) -> dict[str, Any]:
    keys = ("a", "b", "change", "low", "high")
    return {"name": name, **dict(zip(keys, figures, strict=True))}
