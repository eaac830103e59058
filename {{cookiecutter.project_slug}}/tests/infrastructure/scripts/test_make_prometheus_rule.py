import subprocess
import sys
from pathlib import Path

import yaml

from make_prometheus_rule import ALERTS, RULE, prometheus_rule
from processes import ROOT


def test_prometheus_rule_has_the_alerts() -> None:
    written = (ROOT / RULE).read_text(encoding="utf-8")
    alerts = (ROOT / ALERTS).read_text(encoding="utf-8")
    assert written == prometheus_rule(alerts), "run: uv run python scripts/make_prometheus_rule.py"
    assert yaml.safe_load(written)["spec"] == yaml.safe_load(alerts)


def test_script_writes_the_rule_of_changed_alerts(tmp_path: Path) -> None:
    for path in (ALERTS, RULE):
        (tmp_path / path).parent.mkdir(parents=True)
    alerts = (ROOT / ALERTS).read_text(encoding="utf-8").replace("InstanceDown", "ServerDown")
    (tmp_path / ALERTS).write_text(alerts, encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "make_prometheus_rule.py")]
    subprocess.run(command, cwd=tmp_path, check=True)
    rule = yaml.safe_load((tmp_path / RULE).read_text(encoding="utf-8"))
    assert rule["spec"]["groups"][0]["rules"][0]["alert"] == "ServerDown"
