"""The page as a browser gets it, and what it makes of a snapshot."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.access.keys import digest_of
from coordinator.policy.decisions import Decision
from core.access import token_metadata
from tests.coordinator.conftest import TOKEN
from tests.coordinator.openai.conftest import HttpBench, MakeHttp

SNAPSHOT = "/dashboard/snapshot.json"
SCRIPTS = sorted(Path("coordinator/dashboard").glob("*.js"))
RUN = Path(__file__).parent / "page_in_node.mjs"


FILE = f"""
[[tenants.a.keys]]
sha256 = "{digest_of("user")}"

[[tenants.a.keys]]
sha256 = "{digest_of("boss")}"
rights = ["admin"]
"""


def check_headers(reply: httpx.Response) -> None:
    """No script but ours, no frame around it, nothing kept."""
    policy = reply.headers["content-security-policy"]
    assert {"default-src 'none'", "frame-ancestors 'none'", "script-src 'self'"} <= set(policy.split("; "))
    assert "unsafe" not in policy
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-store"


async def snapshot_of(door: HttpBench) -> Any:
    reply = await door.http.get(SNAPSHOT, headers=dict(token_metadata(TOKEN)))
    assert reply.status_code == 200
    return reply.json()


async def run_page(folder: Path, status: int, body: Any, *typed: str, stored: str | None = "secret") -> Any:
    """What the page shows, as its script makes it in node; `folder` is empty.

    stored: the key that the tab remembers; typed: keys that are given to the page when it asks.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here")
    for path in SCRIPTS:
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    given = {"status": status, "body": body, "stored": stored, "typed": typed}
    process = await asyncio.create_subprocess_exec(
        node, str(RUN), str(folder), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(json.dumps(given).encode())
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
    check_headers(reply)
    assert "://" not in reply.text


async def test_what_it_shows_needs_the_token_or_an_admins_key(make_http: MakeHttp, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(FILE)
    door = await make_http(tenants=tmp_path / "tenants.toml", audit_log=tmp_path / "audit.jsonl")
    for key, status in ((None, 401), ("wrong", 401), ("user", 403), ("boss", 200), (TOKEN, 200)):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        reply = await door.http.get(SNAPSHOT, headers=headers)
        assert (reply.status_code, "instances" in reply.json()) == (status, status == 200)
        check_headers(reply)
    assert "wrong" not in (tmp_path / "audit.jsonl").read_text()


async def test_a_key_in_the_address_opens_nothing(
    make_http: MakeHttp, caplog: pytest.LogCaptureFixture
) -> None:
    door = await make_http()
    with caplog.at_level("DEBUG", logger="uvicorn"), caplog.at_level("DEBUG", logger="coordinator"):
        for name in ("token", "key", "authorization"):
            assert (await door.http.get(SNAPSHOT, params={name: TOKEN})).status_code == 401
    assert not [line for line in caplog.messages if TOKEN in line]


async def test_it_can_be_closed_and_the_rest_of_the_door_stays_open(make_http: MakeHttp) -> None:
    door = await make_http(dashboard=False)
    for path in ("/", SNAPSHOT, *(f"/dashboard/{path.name}" for path in SCRIPTS)):
        assert (await door.http.get(path, headers=dict(token_metadata(TOKEN)))).status_code == 404
    assert (await door.http.get("/v1/models")).status_code == 200


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
    [end] = snapshot["ends"]
    assert (end["verdict"], end["ttft_ms"], end["group"]) == ("good", request["first_token_ms"], "text")


async def test_the_timeline_is_kept_while_the_page_is_served(door: HttpBench) -> None:
    await door.bench.until(lambda: door.bench.coordinator.timeline.samples)


async def test_the_script_shows_it(door: HttpBench, tmp_path: Path) -> None:
    await door.bench.ask(text="hello", max_tokens=5, request_id="<b>mine")
    door.bench.coordinator.timeline.note(door.bench.coordinator.state())
    shown = await run_page(tmp_path, 200, await snapshot_of(door))
    assert shown["asked"] == [[SNAPSHOT, "Bearer secret"]]
    assert (shown["trouble"], shown["needsLogin"]) == ("", False)
    assert shown["requests"][1][0] == "<b>mine"
    assert len(shown["instances"]) == 1 + 3
    assert shown["timelineRects"] == 3
    assert ["goodput", "100%", "both targets met"] in shown["tiles"]
    assert shown["goodputRects"] == 1
    assert "100% of 1 within the target" in shown["ttft"]
    assert [each.split()[0] for each in shown["waterfall"][::2]][:2] == ["prepare", "queue"]


async def test_a_number_without_bounds_is_no_trouble(door: HttpBench, tmp_path: Path) -> None:
    numbers = {"tolerance": float("inf"), "score": 2.0}
    door.bench.coordinator.scheduler.decisions.add(Decision(0.0, "search", "cluster", "splits", numbers))
    snapshot = await snapshot_of(door)
    assert snapshot["decisions"][0]["numbers"] == {"tolerance": None, "score": 2.0}
    shown = await run_page(tmp_path, 200, snapshot)
    assert shown["decisions"][1][-1] == "tolerance unbounded, score 2.000"


async def test_a_refused_key_is_asked_for_again_and_not_sent_again(tmp_path: Path) -> None:
    shown = await run_page(tmp_path, 401, {"error": "this service needs a key"}, "another", stored="old")
    assert (shown["needsLogin"], shown["trouble"]) == (True, "this service needs a key")
    assert shown["asked"] == [[SNAPSHOT, "Bearer old"], [SNAPSHOT, "Bearer another"]]
    assert (shown["typedLeft"], shown["numWaiting"]) == ("", 0)


async def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    shown = await run_page(tmp_path, 401, {"error": "no"}, "", "sn\u2603w", stored=None)
    assert (shown["needsLogin"], shown["asked"]) == (True, [])
    assert shown["trouble"] == "no key looks like that"


async def test_a_key_that_is_typed_in_shows_it(door: HttpBench, tmp_path: Path) -> None:
    shown = await run_page(tmp_path, 200, await snapshot_of(door), " mine ", stored=None)
    assert (shown["needsLogin"], shown["asked"]) == (False, [[SNAPSHOT, "Bearer mine"]])
    assert len(shown["instances"]) == 1 + 3
