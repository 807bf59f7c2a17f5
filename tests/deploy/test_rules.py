"""Alert rules in Prometheus' own checker, which skips where promtool is not installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.promtool import RULES_FILE, needs_promtool

FOLDER = RULES_FILE.parent
CASES = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
RULES = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule["alert"] for rule in RULES]


def check(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_rules_and_the_configuration_are_sound() -> None:
    assert f"{len(ALERTS)} rules found" in check("check", "rules", "--lint-fatal", "alerts.yml")
    check("check", "config", "--lint-fatal", "prometheus.yml")


@needs_promtool
def test_alerts_come_when_they_should() -> None:
    check("test", "rules", "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_seen_to_come_and_to_stay_away(alert: str) -> None:
    asked = [case for group in CASES for case in group["alert_rule_test"] if case["alertname"] == alert]
    assert {bool(case.get("exp_alerts")) for case in asked} == {True, False}
    healthy, *_ = CASES
    assert alert in [case["alertname"] for case in healthy["alert_rule_test"] if not case.get("exp_alerts")]


@needs_promtool
@pytest.mark.parametrize("rule", RULES, ids=ALERTS)
def test_without_its_rule_an_alert_is_missed(rule: dict[str, object], tmp_path: Path) -> None:
    """So that what passes above passes for a reason."""
    never = {**rule, "expr": "vector(1) > 2"}
    rules = [never if each is rule else each for each in RULES]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    cases = [
        case
        for case in CASES
        if any(
            each.get("exp_alerts") and each["alertname"] == rule["alert"] for each in case["alert_rule_test"]
        )
    ]
    told = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(told))
    done = subprocess.run(
        ["promtool", "test", "rules", "cases.yml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert b"FAILED" in done.stdout + done.stderr
    assert done.returncode != 0
