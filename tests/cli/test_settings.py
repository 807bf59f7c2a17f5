"""Options of `stage` and `up` become the settings of the same name."""

from pathlib import Path

import pytest

import cli.stage
import cli.up
from cli.launch.plan import LaunchPlan
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
CACHE_WORDS = ("--no-prefix-cache", "--cache-share", "a=0.5", "--cache-share", "b=0.25")
CACHE = {"prefix_cache": False, "cache_shares": (("a", 0.5), ("b", 0.25))}
WORDS = [word for key, value in SHARED.items() for word in (f"--{key.replace('_', '-')}", value)]
CORE = available_cores()[0]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[StageConfig]:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    served: list[StageConfig] = []
    monkeypatch.setattr(cli.stage, "serve", served.append)
    return served


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[LaunchPlan]:
    planned: list[LaunchPlan] = []
    monkeypatch.setattr(cli.up, "_run_here", lambda plan, _state, **_how: planned.append(plan))
    return planned


def test_all_of_stage(run_cli: RunCli, model: Path, served: list[StageConfig]) -> None:
    own = ("--id", "d-9", "--cluster", "c", "--roles", "d", "--device", "cuda:1", "--cores", CORE)
    words = ("--coordinator", "there:1", "--model", model, "--checksums", "--log-level", "debug", *own)
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
    words = (*own, "--cores", CORE, "--checksums", "--allow-private-urls", "--log-level", "debug")
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
        **SHARED,  # type: ignore[arg-type]
        **CACHE,  # type: ignore[arg-type]
    )


def test_a_share_that_is_none_is_wrong_usage(run_cli: RunCli, model: Path) -> None:
    result = run_cli("up", "--model", model, "--device", "cpu", "--cache-share", "a=2")
    assert result.exit_code == 2
    assert "cache_shares" in result.stderr


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
