"""The page as a browser gets it, and what it makes of a snapshot."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coordinator.policy.decisions import Decision
from core.access import token_metadata
from tests.coordinator.conftest import TOKEN
from tests.coordinator.openai.conftest import HttpBench

SNAPSHOT = "/dashboard/snapshot.json"
SCRIPTS = sorted(Path("coordinator/dashboard").glob("*.js"))
RUN = Path(__file__).parent / "page_in_node.mjs"


async def snapshot_of(door: HttpBench) -> Any:
    reply = await door.http.get(SNAPSHOT, headers=dict(token_metadata(TOKEN)))
    assert reply.status_code == 200
    return reply.json()


async def run_page(folder: Path, status: int, body: Any) -> Any:
    """What the page shows, as its script makes it in node; `folder` is empty."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here")
    for path in SCRIPTS:
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    process = await asyncio.create_subprocess_exec(
        node, str(RUN), str(folder), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(json.dumps({"status": status, "body": body}).encode())
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/dashboard/page.css", "text/css"),
        *((f"/dashboard/{path.name}", "text/javascript") for path in SCRIPTS),
    ],
)
async def test_the_page_is_whole_and_asks_nobody_else(door: HttpBench, path: str, kind: str) -> None:
    reply = await door.http.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "://" not in reply.text


async def test_what_it_shows_needs_the_token(door: HttpBench) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert (await door.http.get(SNAPSHOT, headers=headers)).status_code == 401


async def test_a_snapshot_has_the_cluster_and_its_requests(door: HttpBench) -> None:
    await door.bench.ask(text="hello", max_tokens=5, request_id="mine")
    door.bench.coordinator.timeline.note(door.bench.coordinator.state())
    snapshot = await snapshot_of(door)
    assert [each["roles"] for each in snapshot["instances"]] == ["e", "p", "d"]
    assert {each["instance"] for each in snapshot["spans"]} == {each["id"] for each in snapshot["instances"]}
    [request] = snapshot["requests"]
    assert (request["id"], request["state"], request["output_tokens"]) == ("mine", "finished", 5)
    assert request["tpot_ms"] == pytest.approx((request["end_ms"] - request["first_token_ms"]) / 4)
    assert [each["stage"] for each in request["stages"]] == ["prefill", "decode"]
    assert (snapshot["slo_ttft_ms"], snapshot["slo_tpot_ms"]) == (2000, 100)
    assert snapshot["samples"]


async def test_the_timeline_is_kept_while_the_page_is_served(door: HttpBench) -> None:
    await door.bench.until(lambda: door.bench.coordinator.timeline.samples)


async def test_the_script_shows_it(door: HttpBench, tmp_path: Path) -> None:
    await door.bench.ask(text="hello", max_tokens=5, request_id="<b>mine")
    door.bench.coordinator.timeline.note(door.bench.coordinator.state())
    shown = await run_page(tmp_path, 200, await snapshot_of(door))
    assert shown["asked"] == [[SNAPSHOT, "Bearer secret"]]
    assert (shown["hash"], shown["trouble"], shown["needsLogin"]) == ("", "", False)
    assert shown["requests"][1][0] == "<b>mine"
    assert len(shown["instances"]) == 1 + 3
    assert shown["timelineRects"] == 3
    assert "100% of 1 within the target" in shown["ttft"]
    assert [each.split()[0] for each in shown["waterfall"][::2]][:2] == ["prepare", "queue"]


async def test_a_number_without_bounds_is_no_trouble(door: HttpBench, tmp_path: Path) -> None:
    numbers = {"tolerance": float("inf"), "score": 2.0}
    door.bench.coordinator.scheduler.decisions.add(Decision(0.0, "search", "cluster", "splits", numbers))
    snapshot = await snapshot_of(door)
    assert snapshot["decisions"][0]["numbers"] == {"tolerance": None, "score": 2.0}
    shown = await run_page(tmp_path, 200, snapshot)
    assert shown["decisions"][1][-1] == "tolerance unbounded, score 2.000"


async def test_without_the_token_the_script_asks_for_it(tmp_path: Path) -> None:
    shown = await run_page(tmp_path, 401, {"error": "the cluster token is missing or wrong"})
    assert (shown["needsLogin"], shown["trouble"]) == (True, "the cluster token is missing or wrong")
