import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from cli import top
from cli.board import frame
from cli.board.drawing import bar, draw
from cli.board.frame import Frame, take_frame
from cli.percentiles import nearest_rank, percentiles_of
from core.access import write_token
from elasticmm_client import AdminClient
from elasticmm_client.errors import NotRunning
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster
from tests.clients.fake_records import sent, tried


@pytest.fixture
def where(cluster: FakeCluster, tmp_path: Path) -> tuple[object, ...]:
    cluster.transfers = [sent()]
    write_token(tmp_path / "token", TOKEN)
    return ("--address", cluster.address, "--token-file", tmp_path / "token")


def test_one_frame_has_all_parts(run_cli: RunCli, where: tuple[object, ...]) -> None:
    result = run_cli("top", "--once", *where)
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines() if line.strip()]
    assert ["shared", "pd-0", "prefill+decode", "pre", "0", "(0", "tok)", "dec", "1", "7", "quarantined",
            "#.........", "10/100", "serving", "1", "cpu:0"] in rows  # fmt: skip
    assert ["TTFT", "multimodal", "1", "100.0", "100.0", "100.0", "2000", "100%"] in rows
    assert ["TPOT", "multimodal", "1", "20.0", "20.0", "20.0", "10", "0%"] in rows
    assert ["e-0", "pd-0", "shm", "3", "2.0", "4.0", "0"] in rows
    assert "12.2 s ago  search  cluster  splits  (score 0.5, score_before 2)" in result.output
    assert "policy emp (plan 7)" in result.output
    assert "12.5 s" in result.output


def test_it_fits_a_narrow_terminal_unwrapped(cluster: FakeCluster) -> None:
    console = Console(width=48, color_system=None, file=io.StringIO())
    with AdminClient(cluster.address, TOKEN) as admin:
        console.print(draw(take_frame(cluster.address, admin)))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    rows = [line.split() for line in lines]
    assert max(map(len, lines)) <= 48
    assert ["pd-0", "shared:pd", "0", "1", "10%"] in rows
    assert ["e-0", "shared:e", "0", "10%", "clearing"] in rows
    assert ["TTFT", "multimodal", "100", "100", "100", "100%"] in rows
    assert ["kv", "75%", "40", "75"] in rows
    assert ["12", "s", "ago", "cluster:", "splits"] in rows


def test_json_is_one_object(run_cli: RunCli, where: tuple[object, ...]) -> None:
    shown = json.loads(run_cli("top", "--json", *where).stdout)
    assert [each["id"] for each in shown["status"]["instances"]] == ["e-0", "pd-0"]
    ttft, tpot = shown["percentiles"]
    assert (ttft["values_ms"], ttft["attained"], tpot["attained"]) == ([100, 100, 100], 1, 0)
    assert {"plan", "cache", "decisions", "window_s"} <= set(shown)


def test_arms_of_a_trial_are_shown_with_their_instances(
    run_cli: RunCli, where: tuple[object, ...], cluster: FakeCluster
) -> None:
    cluster.trial = tried()
    rows = [line.split() for line in run_cli("top", "--once", *where).output.splitlines()]
    assert [row[-1] for row in rows if "cpu:0" in row] == ["a", "a"]
    assert ["b:", "coupled", "on", "no", "instance"] in rows
    assert ["attainment", "0.9", "1", "+0.1", "+0.01", "to", "+0.17"] in rows
    assert ["targets:", "first", "token", "in", "2", "s,", "0.1", "s", "per", "further", "token"] in rows
    shown = json.loads(run_cli("top", "--json", *where).stdout)
    assert [arm["good"] for arm in shown["trial"]["arms"]] == [90, 40]


def test_what_the_shadow_decides_is_shown(run_cli: RunCli, where: tuple[object, ...]) -> None:
    output = run_cli("top", "--once", *where).output
    assert "30.0% of 10 dispatches differ" in output
    assert "e-0: shared:encode, the shadow wants multimodal:encode+prefill" in output
    assert "shadow: search  cluster  splits" in output
    assert "experiment" not in output
    shown = json.loads(run_cli("top", "--json", *where).stdout)
    assert shown["trial"] is None
    assert all(each["is_shadow"] for each in shown["shadow"]["decisions"])


def test_nothing_is_shown_of_a_shadow_that_is_not_there(
    run_cli: RunCli, where: tuple[object, ...], cluster: FakeCluster
) -> None:
    cluster.has_shadow = False
    assert "shadow" not in run_cli("top", "--once", *where).output
    assert json.loads(run_cli("top", "--json", *where).stdout)["shadow"] is None


def test_watches_until_interrupted(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    with AdminClient(cluster.address, TOKEN) as admin:
        top._watch(cluster.address, admin, 0.5)
    assert slept == [0.5] * 3


def test_goes_on_when_the_coordinator_is_away_for_a_while(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200, height=50)

    def take(address: str, admin: AdminClient) -> Frame:
        asked.append(address)
        if len(asked) == 2:
            raise NotRunning("gone", code="UNAVAILABLE")
        if len(asked) == 4:
            raise KeyboardInterrupt
        return take_frame(address, admin)

    monkeypatch.setattr(top, "make_console", lambda: terminal)
    monkeypatch.setattr(frame, "take_frame", take)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with AdminClient(cluster.address, TOKEN) as admin:
        top._watch(cluster.address, admin, 0.5)
    assert len(asked) == 4
    assert f"{cluster.address} does not answer, asking again: gone" in terminal.file.getvalue()


def test_what_ended_before_the_window_does_not_count(cluster: FakeCluster) -> None:
    with AdminClient(cluster.address, TOKEN) as admin:
        recent = admin.recent()
    assert [each.num_requests for each in percentiles_of(recent, 60)] == [1, 1]
    assert percentiles_of(recent, 0.9) == ()


def test_ranks_and_bars() -> None:
    assert [nearest_rank([1, 2, 3, 4], percent) for percent in (50, 75, 99)] == [2, 3, 4]
    assert [bar(0, 0), bar(1, 2), bar(9, 3)] == ["." * 10, "#####.....", "#" * 10]


def test_nobody_there(run_cli: RunCli) -> None:
    assert run_cli("top", "--once", "--address", "127.0.0.1:1").exit_code == 3
