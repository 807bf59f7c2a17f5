"""Options of `stage` and `up` become the settings of the same name."""

import json
from pathlib import Path

import pytest

import cli.coordinator
import cli.stage
import cli.up
from cli.launch.plan import LaunchPlan
from coordinator.config import CoordinatorConfig, ResumeLimits
from coordinator.policy.trials.shares import TrialWish
from core.access import read_token
from core.stages import Stage
from stage_servers.config import StageConfig
from stage_servers.devices import available_cores
from tests.cli.conftest import RunCli

SHARED = {
    "host": "0.0.0.0",
    "port": 7,
    "advertise": "here",
    "dtype": "float32",
    "attention": "sdpa",
    "transport": "grpc",
    "threads": 2,
    "kv_blocks": 31,
    "embedding_blocks": 32,
    "chunk_tokens": 33,
    "prompt_order": "arrival",
    "encode_order": "arrival",
    "encoding": "blocking",
}
CACHE_WORDS = ("--no-prefix-cache", "--cache-policy", "lru")
CACHE = {"prefix_cache": False, "cache_policy": "lru"}
WORDS = [word for key, value in SHARED.items() for word in (f"--{key.replace('_', '-')}", value)]
WATCH_WORDS = ("--metrics-port", 9400, "--log-format", "json")
CORE = available_cores()[0]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[StageConfig]:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    served: list[StageConfig] = []
    monkeypatch.setattr(cli.stage, "serve", lambda config, **_: served.append(config))
    return served


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[LaunchPlan]:
    planned: list[LaunchPlan] = []
    monkeypatch.setattr(cli.up, "_run_here", lambda plan, _state, **_how: planned.append(plan))
    return planned


def test_all_of_stage(run_cli: RunCli, model: Path, served: list[StageConfig]) -> None:
    own = ("--id", "d-9", "--cluster", "c", "--roles", "d", "--device", "cuda:1", "--cores", CORE)
    words = (
        "--coordinator",
        "there:1",
        "--model",
        model,
        "--checksums",
        "--log-level",
        "debug",
        "--log-format",
        "json",
        *own,
    )
    assert run_cli("stage", *words, *WORDS, *CACHE_WORDS).exit_code == 0
    assert served == [
        StageConfig(
            model=model,
            coordinator="there:1",
            token="t",
            cluster="c",
            instance_id="d-9",
            roles=frozenset({Stage.DECODE}),
            device="cuda:1",
            cores=(CORE,),
            checksums=True,
            log_level="DEBUG",
            log_format="json",
            **SHARED,  # type: ignore[arg-type]
            **CACHE,  # type: ignore[arg-type]
        )
    ]


def test_none_of_stage(run_cli: RunCli, model: Path, served: list[StageConfig]) -> None:
    words = ("--coordinator", "there:1", "--model", model, "--device", "cpu")
    assert run_cli("stage", *words).exit_code == 0
    assert served == [StageConfig(model=model, coordinator="there:1", token="t")]


def test_stage_without_a_token_is_wrong_usage(run_cli: RunCli, model: Path) -> None:
    result = run_cli("stage", "--coordinator", "there:1", "--model", model)
    assert result.exit_code == 2
    assert "no cluster token" in result.stderr


def test_all_of_up(run_cli: RunCli, model: Path, planned: list[LaunchPlan]) -> None:
    own = (
        "--name",
        "n",
        "--model-name",
        "m",
        "--http-port",
        7,
        "--topology",
        "coupled",
        "--instances",
        2,
        "--device",
        "cpu",
    )
    words = (
        *own,
        "--cores",
        CORE,
        "--checksums",
        "--allow-private-urls",
        "--log-level",
        "debug",
        *WATCH_WORDS,
        *("--policy", "emp", "--without", "search", "--without", "w-tuning"),
    )
    assert run_cli("up", "--model", model, *words, *WORDS, *CACHE_WORDS).exit_code == 0
    (plan,) = planned
    assert plan.cluster.startswith("n_")
    assert plan == LaunchPlan(
        cluster=plan.cluster,
        model=model,
        model_name="m",
        http_port=7,
        topology="coupled",
        num_instances=2,
        devices=("cpu",),
        cores=(CORE,),
        checksums=True,
        allow_private_urls=True,
        log_level="DEBUG",
        metrics_port=9400,
        log_format="json",
        policy="emp",
        without=("search", "w-tuning"),
        **SHARED,  # type: ignore[arg-type]
        **CACHE,  # type: ignore[arg-type]
    )


def test_the_coordinator_makes_the_token_that_is_not_there(
    run_cli: RunCli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    words = ("coordinator", "--model", model, "--token-file", tmp_path / "new" / "token")
    assert f"cluster token written to {tmp_path / 'new' / 'token'}\n" in run_cli(*words).stderr
    assert "written" not in run_cli(*words).stderr
    assert {each.cluster_token for each in served} == {read_token(tmp_path / "new" / "token")}
    (tmp_path / "file").touch()
    refused = run_cli(*words[:3], "--token-file", tmp_path / "file" / "token")
    assert (refused.exit_code, "token-file: cannot write" in refused.stderr) == (2, True)


def test_a_model_that_is_not_there_leaves_no_token(run_cli: RunCli, tmp_path: Path) -> None:
    refused = run_cli("coordinator", "--model", tmp_path / "no", "--token-file", tmp_path / "token")
    assert (refused.exit_code, (tmp_path / "token").exists()) == (2, False)
    assert "there is no such folder" in refused.stderr


def test_a_stage_server_needs_an_address_and_a_model(run_cli: RunCli, model: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--coordinator", "host", "--model", model), "coordinator: 'host' is not HOST:PORT"),
        (("--coordinator", "h:1", "--model", tmp_path / "no"), "there is no such folder"),
    ):
        refused = run_cli("stage", *words)
        assert (refused.exit_code, said in refused.stderr) == (2, True)


def test_tenants_of_coordinator(
    run_cli: RunCli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.toml").touch()
    result = run_cli("coordinator", "--model", model, "--tenants", "t.toml", "--audit-log", "audit")
    assert result.exit_code == 0, result.output
    assert [(config.tenants, config.audit_log) for config in served] == [
        (tmp_path / "t.toml", tmp_path / "audit")
    ]


def test_none_of_up(run_cli: RunCli, model: Path, planned: list[LaunchPlan]) -> None:
    assert run_cli("up", "--model", model, "--device", "cpu").exit_code == 0
    (plan,) = planned
    assert plan == LaunchPlan(
        cluster=plan.cluster, model=model, port=50051, http_port=8000, cores=available_cores()
    )


@pytest.mark.parametrize(
    ("words", "http_port"),
    [
        (("--port", 0), 0),
        (("--port", 0, "--http-port", 8000), 8000),
        (("--no-http",), None),
        (("--http-port", 0), 0),
    ],
)
def test_http_port_of_up(
    run_cli: RunCli, model: Path, planned: list[LaunchPlan], words: tuple[object, ...], http_port: int | None
) -> None:
    assert run_cli("up", "--model", model, "--device", "cpu", *words).exit_code == 0
    assert planned[0].http_port == http_port


@pytest.mark.parametrize(("words", "resume"), [((), ResumeLimits()), (("--resume-ttl", 0), ResumeLimits(0))])
def test_how_long_answers_are_kept(
    run_cli: RunCli,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    resume: ResumeLimits,
) -> None:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    assert run_cli("coordinator", "--model", model, *words).exit_code == 0
    assert [config.resume for config in served] == [resume]


@pytest.mark.parametrize(
    ("words", "tried"),
    [
        (("--ab", "coupled:0.25"), (TrialWish("coupled", 0.25), "")),
        (("--shadow", "static:equal"), (None, "static:equal")),
        ((), (None, "")),
    ],
)
def test_what_is_tried_from_the_start(
    run_cli: RunCli,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    tried: tuple[TrialWish | None, str],
) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    assert run_cli("coordinator", "--model", model, *words).exit_code == 0
    assert [(config.trial, config.shadow) for config in served] == [tried]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--ab", "emp:2"), "share: 2 is not between 0 and 1"),
        (("--ab", "x"), "ab: 'x' is not one of"),
        (("--shadow", "x"), "shadow: 'x' is not one of"),
        (("--ab", "emp", "--shadow", "emp"), "ab, shadow: there is one at a time"),
    ],
)
def test_what_cannot_be_tried_is_wrong_usage(
    run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    result = run_cli("coordinator", "--model", model, *words)
    assert (result.exit_code, reason in result.output) == (2, True)


def test_a_start_that_fails_is_json_where_that_is_wanted(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("coordinator", "--model", tmp_path, "--json")
    assert result.exit_code == 2
    assert str(tmp_path) in json.loads(result.stdout)["error"]["message"]
    assert str(tmp_path) in result.stderr
