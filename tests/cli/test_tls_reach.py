"""How commands reach a cluster that speaks TLS."""

from pathlib import Path

import pytest

import cli.coordinator
import cli.up
from cli.endpoint import find_endpoint
from cli.launch.plan import LaunchPlan
from cli.state import ClusterRecord, StateDir
from coordinator.config import CoordinatorConfig
from core.tls import TlsFiles
from elasticmm_client import Tls
from tests.certificates import Authority
from tests.cli.conftest import RunCli


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority(tmp_path / "tls").issue(expected="door")


def words_of(files: TlsFiles) -> tuple[object, ...]:
    return (
        "--tls-cert",
        files.cert,
        "--tls-key",
        files.key,
        "--tls-ca",
        files.ca,
        "--tls-name",
        files.name,
    )


def test_all_options_of_the_coordinators_door(
    run_cli: RunCli, model: Path, tmp_path: Path, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `up` hands them on."""
    served: list[CoordinatorConfig] = []
    planned: list[LaunchPlan] = []
    monkeypatch.setattr(cli.up, "_run_here", lambda plan, _state, **_how: planned.append(plan))
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    (tmp_path / "tenants.toml").touch()
    given = ("--tenants", tmp_path / "tenants.toml", "--audit-log", tmp_path / "audit")
    shut = ("--no-tls-client-cert", "--no-reflection", "--no-dashboard")
    assert run_cli("up", "--model", model, *words_of(files), *given, *shut).exit_code == 0
    [plan] = planned
    assert LaunchPlan.from_json(plan.to_json()) == plan
    stages = plan.stage_configs("c:1", "t")
    assert {(each.tls, each.reflection) for each in stages} == {(files, False)}
    assert run_cli("coordinator", "--model", model, *plan.door_words).exit_code == 0
    [config] = served
    assert (config.tls, config.tls_client_cert, config.reflection) == (files, False, False)
    assert not config.dashboard
    assert (config.tenants, config.audit_log) == (tmp_path / "tenants.toml", tmp_path / "audit")


def test_nothing_is_handed_on_that_was_not_given(model: Path) -> None:
    assert LaunchPlan("c", model).door_words == []
    assert LaunchPlan("c", model).client_tls is None


@pytest.mark.parametrize("command", ["up", "coordinator"])
def test_what_does_not_go_together_is_wrong_usage(
    run_cli: RunCli, model: Path, files: TlsFiles, command: str
) -> None:
    result = run_cli(command, "--model", model, "--tls-cert", files.cert)
    assert result.exit_code == 2
    assert "tls_key" in result.stderr
    assert run_cli(command, "--model", model, "--tenants", "/no/such").exit_code == 2


def test_commands_find_what_up_wrote_down(tmp_path: Path, model: Path, files: TlsFiles) -> None:
    plan = LaunchPlan(
        "c", model, tls_cert=files.cert, tls_key=files.key, tls_ca=files.ca, tls_name=files.name
    )
    state = StateDir(tmp_path)
    state.write_record(ClusterRecord("c", "h:1", "/m", "coupled", (), plan.client_tls))
    wanted = Tls(files.ca, files.cert, files.key, "door")
    assert find_endpoint(state, None).tls == wanted
    assert find_endpoint(state, "elsewhere:1").tls is None


def test_options_before_the_command_count_most(
    run_cli: RunCli, tmp_path: Path, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CA", "CERT", "KEY", "NAME"):
        monkeypatch.setenv(f"ELASTICMM_TLS_{name}", "")
    assert run_cli("--tls-ca", files.ca, "status", "--address", "127.0.0.1:1").exit_code == 3
    assert find_endpoint(StateDir(tmp_path), None).tls == Tls(files.ca)
    result = run_cli("--tls-ca", "/no/such", "status")
    assert result.exit_code == 2
    assert "tls_ca: /no/such cannot be read" in result.stderr


def test_what_is_no_pem_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ValueError, match=f"tls_ca: {tmp_path / 'ca'} is no PEM file"):
        Tls(ca=tmp_path / "ca")
