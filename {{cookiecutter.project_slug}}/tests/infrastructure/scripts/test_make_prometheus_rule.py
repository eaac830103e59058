import yaml

from make_prometheus_rule import ALERTS, RULE, prometheus_rule
from processes import ROOT


def test_prometheus_rule_has_the_alerts() -> None:
    written = (ROOT / RULE).read_text(encoding="utf-8")
    alerts = (ROOT / ALERTS).read_text(encoding="utf-8")
    assert written == prometheus_rule(alerts), "run: uv run python scripts/make_prometheus_rule.py"
    assert yaml.safe_load(written)["spec"] == yaml.safe_load(alerts)
