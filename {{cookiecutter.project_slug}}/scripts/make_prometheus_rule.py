"""Write the PrometheusRule of Kubernetes from observability/alerts.yml.

    python scripts/make_prometheus_rule.py

Run it after a change of an alert. A test fails if the two differ.
"""

from pathlib import Path

ALERTS = Path("observability/alerts.yml")
RULE = Path("deploy/kubernetes/components/monitoring/prometheus-rule.yaml")
HEAD = """\
# scripts/make_prometheus_rule.py writes this file from observability/alerts.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: example-service
  labels:
    app.kubernetes.io/name: example-service
spec:
"""


def prometheus_rule(alerts: str) -> str:
    """Return the text of the PrometheusRule, with the comments of the alerts.

    Args:
        alerts: the text of a rule file of Prometheus.
    """
    groups = alerts[alerts.index("groups:") :]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(True))


if __name__ == "__main__":
    RULE.write_text(prometheus_rule(ALERTS.read_text(encoding="utf-8")), encoding="utf-8")
