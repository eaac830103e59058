"""The pipelines of a baked service; pipelines.py runs every command on this machine.

No account is needed: stand-ins replace the platforms' programs and record their calls, and a server
of the test replaces production.
"""

import http.server
import json
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Bake
from expressions import ExpressionError, Expressions
from pipelines import GitHub, GitLab, Machine, logs_of
from test_baked_service import find_python

pytestmark = pytest.mark.slow

SECRETS = {"RAILWAY_TOKEN": "of-railway", "RENDER_API_KEY": "of-render"}
UPLOAD = 'test "$1" != up || git rev-parse HEAD >> "$CALLS"'  # records the uploaded commit
SHA = re.compile(r"[0-9a-f]{40}")
NewMachine = Callable[..., Machine]


@pytest.fixture(scope="module")
def servers(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the Python of an environment with the embedded servers."""
    project = bake(lock=True).copy_to(tmp_path_factory.mktemp("servers") / "project")
    command = ["uv", "sync", "--quiet", "--locked", "--no-install-project", "--python"]
    subprocess.run([*command, sys.executable], cwd=project, check=True)
    return str(project / ".venv" / "bin" / "python")


@pytest.fixture
def new_machine(bake: Bake, tmp_path: Path) -> NewMachine:
    """new_machine(ci="gitlab") makes a machine with a committed project and stand-ins."""

    def make(**answers: object) -> Machine:
        baked = bake(lock=True, **answers)
        repository = baked.copy_to(tmp_path / "repository")
        wanted = str(baked.answers["python_version"])
        python = find_python(wanted) or sys.executable
        machine = Machine(tmp_path / "machine", repository, python)
        machine.git("init", "--quiet", "--initial-branch", "main")
        machine.commit()
        machine.stand_in("gh")
        machine.stand_in("npm")
        machine.stand_in("railway", UPLOAD)
        machine.overrides["HEALTH_SECONDS"] = "3"
        return machine

    return make


@dataclass
class Production:
    """A deployed service, Render's API and a chat, in one server."""

    machine: Machine
    url: str = ""
    is_ready: bool = True
    is_stuck: bool = False  # keeps serving the old version
    deploys: list[tuple[str, str]] = field(default_factory=list)  # to Render: service, commit
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        uploaded = [call for call in self.machine.calls if SHA.fullmatch(call)]
        deployed = [] if self.is_stuck else uploaded or [commit for _, commit in self.deploys]
        return (deployed or ["old-commit"])[-1]

    def answer(self, path: str, document: Any) -> tuple[int, object]:
        if path == "/chat":
            self.messages.append(document["text"])
        if path.startswith("/render/services?name="):
            name = path.split("=")[1]
            return 200, [{"service": {"id": name, "name": name}}]
        if path.startswith("/render/services/"):
            if document:
                self.deploys.append((path.split("/")[3], document["commitId"]))
            return 200, {"id": "dep-1", "status": "live"}
        answers = {
            "/health": (200, {"commit": self.commit}),
            "/health/ready": (200 if self.is_ready else 503, {}),
        }
        is_known = path in {"/health/live", "/bookmarks", "/chat"}
        return answers.get(path, (200 if is_known else 404, {}))


@contextmanager
def running_production(machine: Machine) -> Iterator[Production]:
    production = Production(machine)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            document = json.loads(self.rfile.read(length)) if length else None
            status, answer = production.answer(self.path, document)
            self.send_response(status)
            kind = "application/json" if status == 200 else "application/problem+json"
            self.send_header("Content-Type", kind)
            self.send_header("X-Request-Id", "1")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_POST = do_GET  # noqa: N815 - the name is that of http.server

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        production.url = f"http://127.0.0.1:{server.server_port}"
        machine.environment["RENDER_API_URL"] = f"{production.url}/render"
        try:
            yield production
        finally:
            server.shutdown()


def results(jobs: dict[str, Any]) -> dict[str, str]:
    return {name: job.result for name, job in jobs.items()}


# --- checks and tests -----------------------------------------------------------------------------


def report_of(machine: Machine) -> ET.Element:
    """Return the root of the only saved test report."""
    (path,) = (machine.folder / "artifacts").rglob("test-report.xml")
    (suite,) = ET.parse(path).getroot()  # noqa: S314 - written by pytest on this machine
    return suite


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_pipeline_of_a_new_project_succeeds(new_machine: NewMachine, servers: str, ci: str) -> None:
    machine = new_machine(ci=ci)
    machine.services_python = servers
    # Another test runs all of them. Here a few show that the pipeline runs the tests.
    for path in (machine.repository / "tests").rglob("test_*.py"):
        if path.name not in {"test_read_through.py", "test_migrate.py", "test_url.py"}:
            path.unlink()
    machine.commit()
    if ci == "github":
        jobs = GitHub(machine).run("ci.yml", only={"check", "test"})
    else:
        jobs = GitLab(machine).run("check", "test")
    assert results(jobs) == {"check": "success", "test": "success"}, logs_of(jobs)
    assert {image for image, count in machine.connections.items() if count > 10} == {
        *("postgres:18", "redis:8"),
    }, "the tests use both servers"
    suite = report_of(machine)
    assert int(suite.get("tests", "0")) > 30
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


RED = "def test_red() -> None:\n    raise AssertionError\n"


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_failing_test_or_lint_error_fails_the_pipeline(
    new_machine: NewMachine, servers: str, ci: str
) -> None:
    machine = new_machine(ci=ci)
    machine.services_python = servers
    for path in (machine.repository / "tests").rglob("test_*.py"):
        path.unlink()
    (machine.repository / "tests" / "test_red.py").write_text(RED)
    (machine.repository / "scripts" / "long.py").write_text("x = 1 " + "#" * 100 + "\n")
    machine.commit()
    if ci == "github":
        pipeline = GitHub(machine, variables={"PRODUCTION_URL": "http://localhost"})
        jobs = pipeline.run("ci.yml", only={"check", "test", "publish", "deploy"})
        expected = {"publish": "skipped", "deploy": "skipped"}
    else:
        jobs, expected = GitLab(machine).run("check", "test"), {}
    assert results(jobs) == {"check": "failure", "test": "failure", **expected}, logs_of(jobs)
    assert "E501" in jobs["check"].output
    assert report_of(machine).get("failures") == "1", "the report of a failed run is saved"
    assert not [call for call in machine.calls if call.startswith(("docker", "railway"))]


def test_pull_request_publishes_and_deploys_nothing(new_machine: NewMachine) -> None:
    machine = new_machine()
    pipeline = GitHub(machine, event="pull_request", ref="refs/pull/1/merge",
                      variables={"PRODUCTION_URL": "http://localhost"})  # fmt: skip
    jobs = pipeline.run("ci.yml", only={"publish", "deploy"})
    assert results(jobs) == {"publish": "skipped", "deploy": "skipped"}
    assert machine.calls == []


# --- deployment -----------------------------------------------------------------------------------


def deploy(machine: Machine, production: Production, ci: str) -> dict[str, Any]:
    variables = {"PRODUCTION_URL": production.url}
    secrets = SECRETS | {"NOTIFY_URL": f"{production.url}/chat"}
    if ci == "github":
        pipeline = GitHub(machine, variables=variables, secrets=secrets)
        return pipeline.run("ci.yml", only={"deploy"})
    return GitLab(machine, variables=variables | secrets).run("deploy")


def railway_calls(commit: str, *services: str) -> list[str]:
    """Return the calls of one deployment."""
    calls = ["npm install --global @railway/cli@5.63.1"]
    for service in services:
        calls.append(f"railway variable set COMMIT_SHA={commit} --skip-deploys --service {service}")
        calls += [f"railway up --ci --service {service}", commit]
    return calls


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("worker", ["none", "postgres"])
def test_tested_commit_is_deployed_to_railway_once(
    new_machine: NewMachine, ci: str, worker: str
) -> None:
    machine = new_machine(ci=ci, deploy="railway", worker=worker)
    with running_production(machine) as production:
        jobs = deploy(machine, production, ci)
    commit = machine.git("rev-parse", "HEAD")
    services = ["app", "worker"] if worker == "postgres" else ["app"]
    assert set(results(jobs).values()) == {"success"}, logs_of(jobs)
    assert machine.calls == railway_calls(commit, *services)
    assert production.messages == []


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_tested_commit_is_deployed_to_render_once(new_machine: NewMachine, ci: str) -> None:
    machine = new_machine(ci=ci, deploy="render", worker="postgres")
    with running_production(machine) as production:
        jobs = deploy(machine, production, ci)
    commit = machine.git("rev-parse", "HEAD")
    assert set(results(jobs).values()) == {"success"}, logs_of(jobs)
    names = ["example-service", "example-service-worker"]
    assert production.deploys == [(name, commit) for name in names]
    assert machine.calls == []


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("cause", ["not ready", "not built", "old version"])
def test_failed_deployment_fails_the_job_and_notifies(
    new_machine: NewMachine, ci: str, cause: str
) -> None:
    machine = new_machine(ci=ci)
    machine.fails = "railway*up*" if cause == "not built" else "nothing"
    with running_production(machine) as production:
        production.is_ready = cause != "not ready"
        production.is_stuck = cause == "old version"
        jobs = deploy(machine, production, ci)
    commit = machine.git("rev-parse", "HEAD")
    assert set(results(jobs).values()) == {"failure"}, logs_of(jobs)
    reasons = {
        "not ready": "smoke test failed: GET /health/ready: 503",
        "not built": "not deployed: ",
        "old version": f"smoke test failed: commit old-commit runs, not {commit}",
    }
    assert reasons[cause] in logs_of(jobs)
    (message,) = production.messages
    assert message.startswith(f"{production.url} - deployment of {commit} failed - https://")
    issues = [call for call in machine.calls if call.startswith("gh ")]
    assert len(issues) == (ci == "github"), machine.calls
    if issues:
        assert f"--repo Acme/example-service --title Deployment failed - {commit}" in issues[0]
        assert issues[0].endswith("/actions/runs/42")
    assert "of-railway" not in logs_of(jobs) + message


# --- deployment to Kubernetes; test_kubernetes_pipelines.py uses a cluster ------------------------

KUBECTL = """\
case "$*" in
*"get deployments"*)
    echo '{"items": [{"metadata": {"name": "example-service",
                     "annotations": {"deployment.kubernetes.io/revision": "7"}}}]}' ;;
*"get job"*) echo '{"status": {"conditions": [{"type": "Complete", "status": "True"}]}}' ;;
*--dry-run*|*--selector*) ;;
*apply*) grep --only-matching 'sha256:d[0-9a-f]*' "$5/kustomization.yaml" >> "$CALLS"
         echo "$COMMIT" >> "$CALLS" ;;
esac"""
DIGEST = f"sha256:d{'1' * 63}"
FIND_DIGEST = f'test "$1" != buildx || printf %s {DIGEST}'
URLS = ("STAGING_URL", "PRODUCTION_URL")
CLUSTER = "https://cluster.example.com"


def deploy_to_kubernetes(
    machine: Machine, production: Production, ci: str, *urls: str
) -> dict[str, Any]:
    """Run the jobs for staging and production, with the variables of these URLs."""
    machine.stand_in("kubectl", KUBECTL)
    machine.stand_in("docker", FIND_DIGEST)
    machine.stand_in("apk")
    machine.identity_token = "of-kubernetes"
    variables = dict.fromkeys(urls, production.url)
    variables |= {"KUBERNETES_SERVER": CLUSTER}
    secrets = {"NOTIFY_URL": f"{production.url}/chat"}
    if ci == "github":
        pipeline = GitHub(machine, variables=variables, secrets=secrets)
        return pipeline.run("ci.yml", only={"deploy-staging", "deploy"})
    pipeline = GitLab(machine, variables=variables | secrets)
    return pipeline.run("deploy-staging", "deploy", by_hand={})


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_tested_commit_is_deployed_to_staging_then_to_production(
    new_machine: NewMachine, ci: str
) -> None:
    machine = new_machine(ci=ci, deploy="kubernetes")
    with running_production(machine) as production:
        jobs = deploy_to_kubernetes(machine, production, ci, *URLS)
    commit = machine.git("rev-parse", "HEAD")
    assert set(results(jobs).values()) == {"success"}, logs_of(jobs)
    namespaces = [re.search(r"--namespace (\S+) apply", call) for call in machine.calls]
    found = [match[1] for match in namespaces if match]
    assert found == ["example-service-staging"] * 3 + ["example-service-production"] * 3
    assert machine.calls.count(DIGEST) == 2, "the image is deployed by its digest"
    image = {"github": "ghcr.io", "gitlab": "registry.example.com"}[ci] + "/acme/example-service"
    inspected = [call for call in machine.calls if "imagetools inspect" in call]
    assert {call.split()[-1] for call in inspected} == {f"{image}:{commit}"}
    assert "of-kubernetes" not in logs_of(jobs)
    assert production.messages == []


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("cause", ["no image", "not rolled out", "old version"])
def test_failed_deployment_to_kubernetes_is_undone_and_notified(
    new_machine: NewMachine, ci: str, cause: str
) -> None:
    machine = new_machine(ci=ci, deploy="kubernetes")
    failing = {"no image": "docker*imagetools*", "not rolled out": "kubectl*--timeout=600s"}
    machine.fails = failing.get(cause, "nothing")
    with running_production(machine) as production:
        production.is_stuck = cause == "old version"
        jobs = deploy_to_kubernetes(machine, production, ci, "STAGING_URL")
    assert jobs["deploy-staging"].result == "failure", logs_of(jobs)
    undone = [call for call in machine.calls if "rollout undo" in call]
    if cause == "no image":
        assert not [call for call in machine.calls if call.startswith("kubectl")]
    else:
        assert "the earlier version is restored" in logs_of(jobs)
        (undo,) = undone
        assert undo.endswith("undo deployment/example-service --to-revision=7")
    (message,) = production.messages
    assert message.startswith(f"{production.url} - deployment of ")


def test_production_is_not_deployed_after_a_failure_in_staging(new_machine: NewMachine) -> None:
    machine = new_machine(deploy="kubernetes")
    machine.fails = "kubectl*--timeout=600s"
    with running_production(machine) as production:
        jobs = deploy_to_kubernetes(machine, production, "github", *URLS)
    assert results(jobs) == {
        "deploy-staging": "failure",
        "deploy-staging/deploy": "failure",
        "deploy": "skipped",
    }
    assert not [call for call in machine.calls if "example-service-production" in call]


def test_gitlab_deploys_to_production_in_a_later_stage_by_hand(new_machine: NewMachine) -> None:
    machine = new_machine(ci="gitlab", deploy="kubernetes")
    variables = {"PRODUCTION_URL": "http://localhost", "STAGING_URL": "http://localhost"}
    pipeline = GitLab(machine, variables=variables)
    assert results(pipeline.run("deploy")) == {"deploy": "skipped"}, "started by hand only"
    stages = pipeline.config["stages"]
    assert stages.index("publish") < stages.index("staging") < stages.index("deploy")
    assert pipeline.config["deploy-staging"]["stage"] == "staging"
    assert results(GitLab(machine).run("deploy-staging")) == {"deploy-staging": "skipped"}


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_deployment_without_production_url_is_skipped(new_machine: NewMachine, ci: str) -> None:
    machine = new_machine(ci=ci)
    if ci == "github":
        jobs = GitHub(machine, secrets=SECRETS).run("ci.yml", only={"deploy"})
    else:
        jobs = GitLab(machine, variables=SECRETS).run("deploy", "check-rollback", "rollback")
    assert set(results(jobs).values()) == {"skipped"}
    assert machine.calls == []


# --- rollback -------------------------------------------------------------------------------------

MIGRATION = """
from alembic import op

revision = "9000"
down_revision = "{after}"


def upgrade() -> None:
    op.execute("{statement}")
"""


def add_migration(machine: Machine, statement: str) -> None:
    folder = machine.repository / "src" / "app" / "migrations" / "versions"
    after = max(path.name[:4] for path in folder.glob("[0-9]*.py"))
    text = MIGRATION.format(after=after, statement=statement)
    (folder / "9000_of_this_test.py").write_text(text)


def roll_back(
    machine: Machine, production: Production, ci: str, commit: str, branch: str = "main"
) -> dict[str, Any]:
    variables = {"PRODUCTION_URL": production.url, "KUBERNETES_SERVER": CLUSTER}
    if ci == "github":
        pipeline = GitHub(machine, event="workflow_dispatch", ref=f"refs/heads/{branch}",
                          variables=variables, secrets=SECRETS)  # fmt: skip
        return pipeline.run("rollback.yml", inputs={"commit": commit})
    pipeline = GitLab(machine, branch=branch, variables=variables | SECRETS)
    return pipeline.run("check-rollback", "rollback", by_hand={"ROLLBACK_TO": commit})


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_rollback_deploys_the_earlier_commit(new_machine: NewMachine, ci: str) -> None:
    machine = new_machine(ci=ci)
    earlier = machine.git("rev-parse", "HEAD")
    add_migration(machine, "ALTER TABLE bookmarks ADD COLUMN note TEXT")
    machine.commit()
    with running_production(machine) as production:
        jobs = roll_back(machine, production, ci, earlier[:10])
    assert set(results(jobs).values()) == {"success"}, logs_of(jobs)
    assert machine.calls == railway_calls(earlier, "app")


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_rollback_on_kubernetes_applies_the_manifests_of_the_earlier_commit(
    new_machine: NewMachine, ci: str
) -> None:
    machine = new_machine(ci=ci, deploy="kubernetes")
    machine.stand_in("kubectl", KUBECTL)
    machine.stand_in("docker", FIND_DIGEST)
    machine.stand_in("apk")
    machine.identity_token = "of-kubernetes"
    earlier = machine.git("rev-parse", "HEAD")
    overlay = machine.repository / "deploy/kubernetes/overlays/production/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("namespace: ", "namespace: later-"))
    machine.commit()
    with running_production(machine) as production:
        jobs = roll_back(machine, production, ci, earlier)
    assert set(results(jobs).values()) == {"success"}, logs_of(jobs)
    assert machine.calls[-1].startswith("kubectl --namespace example-service-production ")
    assert not [call for call in machine.calls if "later-" in call]
    assert earlier in machine.calls


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_rollback_over_a_destructive_migration_is_refused(new_machine: NewMachine, ci: str) -> None:
    machine = new_machine(ci=ci)
    earlier = machine.git("rev-parse", "HEAD")
    add_migration(machine, "ALTER TABLE bookmarks DROP COLUMN title")
    machine.commit()
    with running_production(machine) as production:
        jobs = roll_back(machine, production, ci, earlier)
    first, *others = results(jobs).values()
    assert (first, set(others)) == ("failure", {"skipped"}), logs_of(jobs)
    assert "ALTER TABLE bookmarks DROP COLUMN title" in logs_of(jobs)
    assert machine.calls == []


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_rollback_from_another_branch_is_skipped(new_machine: NewMachine, ci: str) -> None:
    machine = new_machine(ci=ci)
    with running_production(machine) as production:
        jobs = roll_back(machine, production, ci, "HEAD", branch="elsewhere")
    assert set(results(jobs).values()) == {"skipped"}, logs_of(jobs)
    assert machine.calls == []


# --- publication ----------------------------------------------------------------------------------

DOCKER = """case "$*" in *RepoDigests*) echo "ghcr.io/acme/example-service@sha256:d1" ;; esac
test "$1" != login || printf 'password: %s\\n' "$(cat)" >> "$CALLS" """

TRIVY = 'case "$*" in *--output*) touch sbom.cdx.json ;; esac'


@pytest.mark.parametrize("is_private", [True, False])
def test_tested_image_is_published_by_github(new_machine: NewMachine, is_private: bool) -> None:
    machine = new_machine()
    machine.stand_in("docker", DOCKER)
    (machine.folder / "artifacts" / "image").mkdir()
    for name in ("image.tar", "sbom.cdx.json"):
        (machine.folder / "artifacts" / "image" / name).touch()
    jobs = GitHub(machine, is_private=is_private).run("ci.yml", only={"publish"})
    name = f"ghcr.io/acme/example-service:{machine.git('rev-parse', 'HEAD')}"
    assert results(jobs) == {"publish": "success"}, logs_of(jobs)
    assert machine.calls == [
        "docker load --input image.tar",
        f"docker tag example-service:local {name}",
        "docker login ghcr.io --username ada --password-stdin",
        "password: of-the-job",
        f"docker push {name}",
        f"docker image inspect --format {{{{index .RepoDigests 0}}}} {name}",
    ]
    attested = [given for name, given in machine.used if name == "actions/attest"]
    subject = {"subject-name": "ghcr.io/acme/example-service", "subject-digest": "sha256:d1"}
    pushed = subject | {"push-to-registry": "true"}
    assert attested == ([] if is_private else [pushed, pushed | {"sbom-path": "sbom.cdx.json"}])


def test_tested_image_is_published_by_gitlab(new_machine: NewMachine) -> None:
    machine = new_machine(ci="gitlab")
    machine.stand_in("docker", DOCKER)
    jobs = GitLab(machine).run("publish")
    name = f"registry.example.com/acme/example-service:{machine.git('rev-parse', 'HEAD')}"
    assert results(jobs) == {"publish": "success"}, logs_of(jobs)
    assert f"docker push {name}" in machine.calls
    assert "password: of-the-job" in machine.calls
    assert results(GitLab(machine, branch="elsewhere").run("publish")) == {"publish": "skipped"}


@pytest.mark.parametrize("is_vulnerable", [False, True])
def test_image_is_scanned_by_gitlab(new_machine: NewMachine, *, is_vulnerable: bool) -> None:
    machine = new_machine(ci="gitlab")
    machine.stand_in("trivy", TRIVY)
    machine.fails = "trivy*--exit-code 1*" if is_vulnerable else "nothing"
    jobs = GitLab(machine).run("scan")
    assert results(jobs) == {"scan": "failure" if is_vulnerable else "success"}, logs_of(jobs)
    checked, listed = "--severity HIGH,CRITICAL --ignore-unfixed --exit-code 1", "sbom.cdx.json"
    calls = [f"trivy image --input image.tar {checked}"]
    if not is_vulnerable:
        calls.append(f"trivy image --input image.tar --format cyclonedx --output {listed}")
    assert machine.calls == calls
    assert (machine.folder / "artifacts" / listed).exists() == (not is_vulnerable)


# --- expressions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("github.event_name == 'push' && vars.URL != ''", True),
        ("github.event_name == 'push' && vars.NONE != ''", False),
        ("!github.event.repository.private", True),
        ("!cancelled()", True),
        ("(failure() || 'a' == 'b') && 'c'", False),
        ("job.services.database.ports['5432']", "1234"),
        ("'it''s'", "it's"),
    ],
)
def test_expression_is_evaluated(text: str, value: object) -> None:
    github = {"event_name": "push", "event": {"repository": {"private": False}}}
    job = {"services": {"database": {"ports": {"5432": "1234"}}}}
    contexts = {"github": github, "job": job, "vars": {"URL": "x"}}
    functions = {"failure": lambda: False, "cancelled": lambda: False}
    assert Expressions(contexts, functions).value(text) == value


@pytest.mark.parametrize("text", ["github.nothing", "hashFiles('x')", "1 + 1", "('a'", "'a' 'b'"])
def test_unsupported_expression_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expressions({"github": {}}).value(text)
