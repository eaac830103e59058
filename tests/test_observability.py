"""The option `metrics` with Prometheus: configuration, alerts, every query.

Needs `prometheus` and `promtool`, from Debian's package `prometheus`. Without them these tests are
skipped, or fail if CI is set.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bake
from engine import ask, free_port
from test_first_minutes import environment, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("promtool") is None and "CI" not in os.environ,
        reason="promtool is not installed: apt-get install prometheus; CI fails without it",
    ),
]

TOKEN = "of-this-test-and-no-other"
CREDENTIALS = "/run/secrets/metrics_token"
SCRAPE_SECONDS = 1


@pytest.fixture(scope="module")
def project(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake a service with another name: rules and queries must have that name."""
    baked = bake(lock=True, project_name="Order Service", project_slug="order-service")
    return baked.copy_to(tmp_path_factory.mktemp("observed") / "order-service")


@pytest.fixture(scope="module", params=["none", "postgres"])
def configured(
    bake: Bake, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Bake a service without a worker and one with it, for tests that start neither."""
    names = {"project_name": "Order Service", "project_slug": "order-service"}
    baked = bake(**names, worker=request.param)
    return baked.copy_to(tmp_path_factory.mktemp("configured") / "order-service")


def has_worker(project: Path) -> bool:
    return (project / "docs" / "jobs.md").exists()


def promtool(*arguments: str, folder: Path) -> str:
    result = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_alerts_pass_their_promtool_tests(configured: Path) -> None:
    folder = configured / "observability"
    number = 7 if has_worker(configured) else 4
    assert f"{number} rules found" in promtool("check", "rules", "alerts.yml", folder=folder)
    promtool("test", "rules", "alerts_test.yml", folder=folder)
    tests = yaml.safe_load((folder / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for alert in alerts(configured):
        expected = [bool(c["exp_alerts"]) for c in cases if c["alertname"] == alert["alert"]]
        assert {True, False} == set(expected), (
            f"{alert['alert']}: a test with and one without the alert"
        )


def test_alert_tests_fail_for_each_changed_limit(configured: Path, tmp_path: Path) -> None:
    folder = configured / "observability"
    shutil.copy(folder / "alerts_test.yml", tmp_path)
    changed = list(with_changed_limits((folder / "alerts.yml").read_text()))
    limits = 3 + 1 + 4 + 2 * has_worker(configured)
    assert len(changed) == 2 * limits, "thresholds, a quantile and durations"
    for rules in changed:
        (tmp_path / "alerts.yml").write_text(rules)
        with pytest.raises(AssertionError, match="FAILED"):
            promtool("test", "rules", "alerts_test.yml", folder=tmp_path)


def with_changed_limits(rules: str) -> Iterator[str]:
    """Yield the rules with one limit a little lower or higher."""
    for found in re.finditer(r"(?<=> )[\d.]+$|(?<=_quantile\()[\d.]+", rules, re.MULTILINE):
        for factor in (0.96, 1.04):
            yield f"{rules[: found.start()]}{float(found[0]) * factor}{rules[found.end() :]}"
    for found in re.finditer(r"(?<= for: )(\d+)m$", rules, re.MULTILINE):
        for seconds in (-15, 15):  # the evaluation interval
            length = f"{60 * int(found[1]) + seconds}s"
            yield f"{rules[: found.start()]}{length}{rules[found.end() :]}"


def test_every_alert_has_summary_runbook_and_section(configured: Path) -> None:
    page = (configured / "docs" / "monitoring.md").read_text()
    for alert in alerts(configured):
        assert set(alert["annotations"]) == {"summary", "runbook"}
        assert f"\n### {alert['alert']}\n" in page


def alerts(project: Path) -> list[dict[str, Any]]:
    text = (project / "observability" / "alerts.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_dashboards_are_provisioned_with_the_limits_of_the_alerts(configured: Path) -> None:
    folder = configured / "observability" / "grafana"
    mounted = yaml.safe_load((configured / "compose.yaml").read_text())["services"]["grafana"]
    (sources,) = (folder / "provisioning" / "datasources").iterdir()
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    (providers,) = (folder / "provisioning" / "dashboards").iterdir()
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    dashboards = sorted((folder / "dashboards").iterdir())
    names = ["jobs.json"] * has_worker(configured) + ["service.json"]
    assert [dashboard.name for dashboard in dashboards] == names
    inside = provider["options"]["path"]
    assert f"./observability/grafana/dashboards:{inside}:ro" in mounted["volumes"]
    assert "./observability/grafana/provisioning:/etc/grafana/provisioning:ro" in mounted["volumes"]
    first_page = mounted["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert first_page == f"{inside}/service.json"
    for dashboard in dashboards:
        assert set(re.findall(r'"uid": "(.+)"', dashboard.read_text())) == {source["uid"]}
    limits = {
        float(n) for a in alerts(configured) for n in re.findall(r">=? ([\d.]+)$", a["expr"], re.M)
    }
    for kind in ("stat", "timeseries"):
        assert set().union(*(red_limits(d, kind) for d in dashboards)) == limits, kind


def red_limits(dashboard: Path, kind: str) -> set[float]:
    """Return the values from which panels of a kind are red, without those that are always red."""
    panels = [p for p in json.loads(dashboard.read_text())["panels"] if p["type"] == kind]
    every = [p["fieldConfig"]["defaults"].get("thresholds", {"steps": []}) for p in panels]
    steps = [step for thresholds in every for step in thresholds["steps"]]
    return {s["value"] for s in steps if s["color"] == "red" and s["value"] is not None}


def test_prometheus_configuration_is_valid_and_finds_every_replica(
    configured: Path, tmp_path: Path
) -> None:
    folder = configured / "observability"
    promtool("check", "config", "--syntax-only", "prometheus.yml", folder=folder)
    scrapes = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    expected = {"order-service": "app"}
    if has_worker(configured):
        expected["order-service-worker"] = "worker"
    assert {s["job_name"]: s["dns_sd_configs"][0]["names"][0] for s in scrapes} == expected
    for scrape in scrapes:
        (discovery,) = scrape["dns_sd_configs"]
        assert (discovery["type"], discovery["port"]) == ("A", 8000)
    promtool("check", "config", str(configure(configured, tmp_path, "localhost:1")), folder=folder)


def configure(project: Path, folder: Path, target: str, token: str = f"{TOKEN}\n") -> Path:
    """Write the project's configuration with a token and a fixed address."""
    (folder / "token").write_text(token)
    text = (project / "observability" / "prometheus.yml").read_text()
    assert text.count(CREDENTIALS) == 1  # further scrapes refer to it
    config = yaml.safe_load(text.replace(CREDENTIALS, str(folder / "token")))
    config["global"] = {f"{of}_interval": f"{SCRAPE_SECONDS}s" for of in ("scrape", "evaluation")}
    config["rule_files"] = [str(project / "observability" / "alerts.yml")]
    scrape = config["scrape_configs"][0]
    config["scrape_configs"] = [scrape]
    del scrape["dns_sd_configs"]
    scrape["static_configs"] = [{"targets": [target]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


class Prometheus:
    """A client of Prometheus' HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        found = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: process.poll() is not None or answers(found), log)
        assert process.poll() is None, log.read_text()
        yield found
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(prometheus: Prometheus) -> bool:
    try:
        prometheus.get("query", query="1")
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


class Open(BaseHTTPRequestHandler):
    """A service that requires no token."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(f'sent{{authorization="{self.headers["Authorization"]}"}} 1\n'.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_prometheus_with_empty_token_file_scrapes(project: Path, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Open) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = configure(project, tmp_path, f"127.0.0.1:{server.server_port}", token="")
        with prometheus(config, tmp_path) as found:
            wait_until(lambda: bool(found.value("sent")), tmp_path / "prometheus.log")
            assert [r["metric"]["authorization"] for r in found.value("sent")] == ["Bearer"]
        server.shutdown()


def queries(project: Path) -> list[str]:
    """Return the expressions of the dashboard, with the value of Grafana's variable."""
    dashboards = project / "observability" / "grafana" / "dashboards"
    (file,) = dashboards.iterdir()
    panels = json.loads(file.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [text.replace("$__rate_interval", f"{60 * SCRAPE_SECONDS}s") for text in found]


def test_dashboard_and_alert_queries_return_data(project: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, WEB_CONCURRENCY="2", METRICS_TOKEN=TOKEN)
    serve = ["uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable]
    serve += ["app", "dev", "--no-reload"]
    with serving(serve, project, env) as url:
        assert ask(f"{url}/metrics").status == 401
        config = configure(project, tmp_path, url.removeprefix("http://"))
        with prometheus(config, tmp_path) as found:
            drive(url, project, tmp_path, found)
            check_queries(project, found)
            check_alerts(project, found)


def drive(url: str, project: Path, folder: Path, found: Prometheus) -> None:
    """Send reads, writes and unknown paths, also while the database is down."""
    log = folder / "prometheus.log"
    wait_until(lambda: [r["value"][1] for r in found.value("up")] == ["1"], log)
    (folder / "load").mkdir()

    def traffic(number: int) -> set[int]:
        page = {"url": f"https://example.com/{number}", "title": "x"}
        answers = (
            ask(f"{url}/bookmarks"),
            ask(f"{url}/bookmarks", method="POST", body=page),
            ask(f"{url}/nowhere/{number}"),
        )
        return {answer.status for answer in answers}

    def statuses(numbers: range) -> set[int]:
        with ThreadPoolExecutor(8) as pool:
            return set().union(*pool.map(traffic, numbers))

    assert statuses(range(50)) == {200, 201, 404}
    postmaster = int((project / ".data/postgres/postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGINT)
    wait_until(lambda: ask(f"{url}/bookmarks").status == 503, log)
    # A rate needs two scrapes with the series, and there were no errors before.
    for start in range(50, 80, 10):
        assert statuses(range(start, start + 10)) == {503, 404}
        time.sleep(1.5 * SCRAPE_SECONDS)


def check_queries(project: Path, found: Prometheus) -> None:
    expressions = queries(project)
    assert len(expressions) > 15
    for expression in expressions:
        assert 'job="order-service"' in expression
        result = found.value(expression)
        assert result, f"no data: {expression}"
        assert all(float(r["value"][1]) >= 0 for r in result), f"{expression}: {result}"
    (errors,) = found.value(next(e for e in expressions if "vector(0)) /" in e))
    assert 0 < float(errors["value"][1]) < 1
    routes = {r["metric"]["route"] for r in found.value("count by (route) (http_requests_total)")}
    assert {"/bookmarks", "unmatched"} <= routes
    assert not [route for route in routes if "nowhere" in route]


def check_alerts(project: Path, found: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in found.get("rules")["groups"] for rule in group["rules"]]

    assert len(rules()) == len(alerts(project)) == 4
    assert {rule["health"] for rule in rules()} == {"ok"}
    states = {rule["name"]: rule["state"] for rule in rules()}
    assert states["InstanceDown"] == "inactive", "the instance is up"
    assert states["ErrorsOver5Percent"] == "pending", "most recent requests failed"
    for rule in alerts(project):  # the expression without its limit
        data = re.split(r"\s+(?:>|==) [\d.]+", rule["expr"])[0]
        assert data != rule["expr"]
        assert found.value(data), f"no data: {data}"
