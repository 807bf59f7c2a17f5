"""The command against real processes."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from cli.launch.remains import find_segments, record_process
from cli.state import StateDir
from tests.checkpoints import build_checkpoint

pytestmark = pytest.mark.cluster

CLI = (sys.executable, "-m", "cli.main")
SMALL = ("--port", "0", "--dtype", "float32", "--kv-blocks", "64", "--threads", "1", "--checksums")
PORTS = ("--metrics-port", "0")


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*CLI, *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def start(*words: object) -> subprocess.Popen[str]:
    command = [*CLI, *(str(word) for word in words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(holds: Callable[[], bool], timeout_s: float = 60) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.05)
    return holds()


def alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if record_process(name, pid) is not None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """Whatever a test leaves running there is ended."""
    yield tmp_path / "state"
    if StateDir(tmp_path / "state").read_record() is not None:
        call("down", "--state-dir", tmp_path / "state")


def picture(path: Path) -> Path:
    image = Image.new("RGB", (90, 70), (200, 30, 30))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    return path


def test_a_detached_cluster_from_up_to_down(checkpoint: Path, state_dir: Path, tmp_path: Path) -> None:
    where = ("--state-dir", state_dir)
    up = call(
        "up", "--model", checkpoint, "--topology", "e1p1d1", "--detach", "--json", *SMALL, *where, *PORTS
    )
    assert up.returncode == 0, up.stderr
    cluster = json.loads(up.stdout)
    assert "elasticmm:ready 1.0" in httpx.get(cluster["metrics"]).text
    assert [each["id"] for each in cluster["instances"]] == ["e-0", "p-0", "d-0"]
    assert (state_dir / "token").stat().st_mode & 0o777 == 0o600

    log = (state_dir / "up.log").read_text()
    assert "d-0 (pid " in log
    again = call("up", "--model", checkpoint, "--detach", *SMALL, *where)
    assert (again.returncode, str(state_dir) in again.stderr) == (1, True)
    assert (state_dir / "up.log").read_text() == log

    answer = call("generate", "what is it?", "--image", picture(tmp_path / "a.png"), "--max-tokens", 9,
                  "--ignore-eos", "--json", *where)  # fmt: skip
    result = json.loads(answer.stdout)
    assert (result["finish_reason"], len(result["token_ids"])) == ("length", 9)
    # In order of start; the text before the picture is prefilled while the picture is encoded.
    *first, last = [(each["stage"], each["instance"]) for each in result["stages"]]
    assert (sorted(first), last) == ([("encode", "e-0"), ("prefill", "p-0")], ("decode", "d-0"))
    assert result["usage"]["media_tokens"] > 0
    assert call("generate", "hello", "--max-tokens", 5, "--ignore-eos", *where).stdout.endswith("\n")

    assert "e1p1d1" in call("status", *where).stdout
    check_console(state_dir, result["request_id"])
    check_interrupted_client(state_dir)

    segments = find_segments(StateDir(state_dir).read_record().cluster)
    assert segments
    down = call("down", *where)
    assert (down.returncode, "killed" in down.stdout + down.stderr) == (0, False)
    assert not alive(cluster["pids"])
    assert not [path for path in segments if path.exists()]
    assert " ended: " in call("logs", "-n", 3, *where).stdout
    assert call("status", *where).returncode == 3
    assert call("down", *where).returncode == 3


def check_console(state_dir: Path, request_id: str) -> None:
    """What shows a running cluster, of one that has answered a request about a picture and one of text."""
    where = ("--state-dir", state_dir)
    trace = json.loads(call("trace", request_id, "--json", *where).stdout)
    assert (trace["state"], trace["output_tokens"]) == ("finished", 9)
    names = [step["name"] for step in trace["steps"]]
    assert {"prepare", "queue", "encode", "prefill", "first token", "decode"} <= set(names)
    frame = json.loads(call("top", "--json", *where).stdout)
    assert [each["num_requests"] for each in frame["percentiles"]] == [1, 1, 1, 1]
    assert request_id in call("logs", *where).stdout
    named = call("logs", "--instance", "d-0", *where).stdout.splitlines()
    assert named
    assert all("d-0" in line for line in named)
    assert "serves" in call("doctor", *where).stdout


def check_interrupted_client(state_dir: Path) -> None:
    """Ctrl-C in the middle of an answer leaves nothing of it in the cluster."""
    words = ("tell me everything", "--max-tokens", 900, "--ignore-eos", "--state-dir", state_dir)
    with start("generate", *words) as client:
        client.stdout.read(1)
        client.send_signal(signal.SIGINT)
        assert client.wait(60) == 130
    assert until(lambda: is_idle(status(state_dir)))


def status(state_dir: Path) -> dict[str, Any]:
    return dict(json.loads(call("status", "--json", "--state-dir", state_dir).stdout))


def is_idle(cluster: dict[str, Any]) -> bool:
    return cluster["requests_running"] == 0 and all(
        each["free_kv_blocks"] == each["total_kv_blocks"] and each["leases"] == 0
        for each in cluster["instances"]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_parts_end_with_up(checkpoint: Path, state_dir: Path, number: signal.Signals) -> None:
    """Asked to end it leaves nothing; killed outright its parts notice, and down sweeps up."""
    with start("up", "--model", checkpoint, "--json", *SMALL, "--state-dir", state_dir) as up:
        cluster = json.loads(up.stdout.readline())
        record = StateDir(state_dir).read_record()
        assert "epd-0" in alive(cluster["pids"])
        up.send_signal(number)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            up.kill()
            pytest.fail(f"{number.name} did not end it: {up.stderr.read()}")
    assert until(lambda: not alive(cluster["pids"])), alive(cluster["pids"])
    if number is signal.SIGKILL:
        assert call("down", "--state-dir", state_dir).returncode == 0
    assert not find_segments(record.cluster, record.processes)
    assert StateDir(state_dir).read_record() is None


def test_down_ends_a_cluster_in_the_foreground(checkpoint: Path, state_dir: Path) -> None:
    with start("up", "--model", checkpoint, "--json", *SMALL, "--state-dir", state_dir) as up:
        assert json.loads(up.stdout.readline())["address"]
        assert call("down", "--state-dir", state_dir).returncode == 0
        assert up.wait(60) == 0, up.stderr.read()


def test_a_broken_model_is_named_and_nothing_stays(checkpoint: Path, state_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in checkpoint.iterdir():
        if path.name != "model.safetensors":
            (broken / path.name).symlink_to(path)
    (broken / "model.safetensors").write_bytes(b"no weights")
    up = call("up", "--model", broken, "--detach", *SMALL, "--state-dir", state_dir)
    assert up.returncode == 1
    assert "model.safetensors: is no safetensors file" in up.stderr
    assert not (state_dir / "cluster.json").exists()
    assert StateDir(state_dir).read_record() is None


def test_the_parts_by_hand(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTICMM_TOKEN", "by-hand")
    with contextlib.ExitStack() as stack:
        words = ("--model", checkpoint)
        coordinator = stack.enter_context(
            start("coordinator", *words, "--port", 0, "--metrics-port", 0, "--json")
        )
        stack.callback(coordinator.terminate)
        served = json.loads(coordinator.stdout.readline())
        address = served["address"]
        assert served == {"address": address, "http": None, "metrics": served["metrics"]}
        assert "elasticmm:ready 0.0" in httpx.get(served["metrics"]).text
        stage = stack.enter_context(
            start("stage", "--coordinator", address, *words, "--kv-blocks", 64, "--id", "mine", "--json")
        )
        stack.callback(stage.terminate)
        assert json.loads(stage.stdout.readline()) == {"instance_id": "mine"}
        answer = call("generate", "hello", "--max-tokens", 4, "--ignore-eos", "--json", "--address", address)
        assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 4
        os.kill(stage.pid, signal.SIGINT)
        assert stage.wait(60) == 0
        assert json.loads(call("status", "--json", "--address", address).stdout)["instances"] == []
        os.kill(coordinator.pid, signal.SIGINT)
        assert coordinator.wait(60) == 0


def test_a_killed_stage_server_comes_back(checkpoint: Path, state_dir: Path) -> None:
    where = ("--state-dir", state_dir)
    words = ("--model", checkpoint, "--topology", "e1p1d1", "--detach", "--json", *SMALL, *where)
    cluster = json.loads(call("up", *words).stdout)
    first = {each["id"]: each["pid"] for each in cluster["instances"]}
    os.kill(first["p-0"], signal.SIGKILL)

    def is_back() -> bool:
        record = StateDir(state_dir).read_record()
        pids = {each.name: each.pid for each in record.processes}
        return pids["p-0"] != first["p-0"] and status(state_dir)["instances_missing"] == 0

    assert until(is_back)
    answer = call("generate", "hello", "--max-tokens", 5, "--ignore-eos", "--json", *where)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert [each["instance"] for each in json.loads(answer.stdout)["stages"]] == ["p-0", "d-0"]
    log = (state_dir / "up.log").read_text()
    assert f"p-0 (pid {first['p-0']}) exited: exit code -9" in log
    assert "p-0 starting: again in 1 s" in log
    assert until(lambda: is_idle(status(state_dir)))
    cluster_id = StateDir(state_dir).read_record().cluster
    down = call("down", *where)
    assert (down.returncode, "killed" in down.stdout + down.stderr) == (0, False)
    assert not find_segments(cluster_id)
