"""The docs of a bake: links, paths and names exist, and the commands work.

BLOCKS lists every block of shell commands and every target of the Makefile with its test. A new
block or target fails here until it is listed. For those that no test runs as they are written, it
has the reason, which CONTRIBUTING.md repeats.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, TEMPLATE, Bake, Baked
from engine import Stack
from test_bake import EVERY_OPTION, NO_OPTION
from test_deployment import settings_of
from test_first_minutes import environment, serving
from test_memory_limits import PROCESSES, SERVICES

BAKES: dict[str, dict[str, object]] = {
    "defaults": {},
    "everything on Railway": EVERY_OPTION,
    "everything on Render": {
        **EVERY_OPTION,
        "auth": "oidc",
        "worker": "celery",
        "ci": "gitlab",
        "deploy": "render",
    },
    "everything on Kubernetes": {**EVERY_OPTION, "deploy": "kubernetes"},
    "nothing": NO_OPTION,
}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")

# Paths in the docs that do not exist in every project.
ORDERS = ("__init__", "models", "schemas", "errors", "service", "jobs", "routes")
MADE_LATER = {
    *("src/app/tags/models.py", "uv.lock", ".env", ".data/", "jobs.py", ".cruft.json", "fly.toml"),
    "deploy/kubernetes/secrets/production.env",
    *(f"src/app/features/orders/{name}.py" for name in ORDERS),
    *("tests/features/orders/test_orders.py", "tests/features/orders/test_order_jobs.py"),
    *(f"src/app/features/products/{name}.py" for name in ORDERS),
    "tests/features/products/test_products.py",
    *(f"src/app/features/payments/{name}.py" for name in (*ORDERS, "settings", "client")),
    *("tests/support/payment_provider.py", "tests/features/payments/test_payments.py"),
}
# Variables in the docs that are not settings of the service, and their owner.
OF_OTHERS = {
    "ORDER_DAYS": "docs/add-a-setting.md",
    "RAILWAY_TOKEN": "Railway's command line",
    "OTEL_EXPORTER_OTLP_HEADERS": "OpenTelemetry's exporter",
    "ATTEMPT_SECONDS": "the client of docs/call-another-service.md",
    "CALL_SECONDS": "the client of docs/call-another-service.md",
    "HTTP_PROXY": "httpx",
    "HTTPS_PROXY": "httpx",
}
IMAGINED = {"/orders/{}"}  # examples in the docs
# Paths in the docs that are not endpoints of the service, and their owner.
NOT_SERVED = {
    "/opt/venv": "the image",
    "/run/secrets/metrics_token": "Prometheus",
    "/.well-known/openid-configuration": "the OpenID Connect provider",
    "/alerts": "Prometheus",
    "/targets": "Prometheus",
    "/dev/shm": "Linux",
    "/tmp": "the image",
    "/v1/traces": "the collector",
}


@pytest.fixture(params=BAKES.values(), ids=BAKES)
def baked(bake: Bake, request: pytest.FixtureRequest) -> Baked:
    return bake(**request.param)


def pages(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted([folder / "README.md", *(folder / "docs").rglob("*.md")])
    }


def named(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each piece of inline code with its page."""
    for page, text in pages(folder).items():
        for code in CODE.findall(FENCE.sub("", text)):
            yield page, code


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_has_a_target(baked: Baked) -> None:
    for page, text in pages(baked.path).items():
        for link in LINK.findall(FENCE.sub("", text)):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = (baked.path / page).parent / path if path else baked.path / page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target.read_text()), f"{page}: {link}"


def test_every_page_has_a_link(baked: Baked) -> None:
    linked = {
        ((baked.path / page).parent / link.partition("#")[0]).resolve()
        for page, text in pages(baked.path).items()
        for link in LINK.findall(text)
        if not link.startswith("#")
    }
    lost = {p for p in pages(baked.path) if (baked.path / p).resolve() not in linked}
    assert lost == {"README.md"}


def test_every_path_in_the_docs_exists(baked: Baked) -> None:
    files = [path.relative_to(baked.path).as_posix() for path in baked.path.rglob("*")]
    tops = {path.name for path in baked.path.iterdir()}
    for page, code in named(baked.path):
        looks_like_one = re.fullmatch(
            r"\.?[\w-][\w.-]*(/[\w.-]+)*/?", code
        ) and (  # a file name, or a path in an existing folder
            re.search(r"\.(md|py|sh|toml|ya?ml|json|txt|lock|template)$", code)
            or ("/" in code and code.split("/")[0] in tops)
        )
        if looks_like_one and code not in MADE_LATER:
            found = [file for file in files if f"/{file}".endswith(f"/{code.rstrip('/')}")]
            assert found, f"{page}: {code}"


def test_every_make_target_in_the_docs_exists(baked: Baked) -> None:
    targets = set(targets_of(baked.path))
    for page, text in pages(baked.path).items():
        scripts = "\n".join([*CODE.findall(FENCE.sub("", text)), *shell_blocks(text)])
        for target in re.findall(r"^make ([a-z-]+)", scripts, re.MULTILINE):
            assert target in targets, f"{page}: make {target}"


def test_every_variable_in_the_docs_exists(baked: Baked) -> None:
    settings = settings_of(baked)
    others = "\n".join(
        path.read_text()
        for path in baked.path.rglob("*")
        if path.is_file() and path.suffix not in {".md", ".pyc"} and "src" not in path.parts
    )
    for page, code in named(baked.path):
        for name in re.findall(r"^([A-Z]+(?:_[A-Z]+)+)(?:=.*)?$", code):
            assert name in settings or name in OF_OTHERS or re.search(rf"\b{name}\b", others), (
                f"{page}: {name}"
            )


# Messages in troubleshooting that other programs log, and the program.
MESSAGES_OF_OTHERS = {
    "port is already allocated": "Docker",
    "make": "a shell",
    "too many clients already": "PostgreSQL",
    "remaining connection slots are reserved": "PostgreSQL",
    "prepared statement … does not exist": "PostgreSQL",
    "unsupported startup parameter": "PgBouncer",
    "ConnectionError": "redis-py",
    "OutOfMemoryError": "redis-py",
    "ReadOnlyError": "redis-py",
    "TimeoutError": "redis-py",
    "No module named 'railway_sdk'": "Python",
    "already managed by railway.json": "Railway",
}


def test_every_message_in_troubleshooting_exists(baked: Baked) -> None:
    source = "".join(path.read_text() for path in (baked.path / "src").rglob("*.py"))
    page = pages(baked.path)["docs/deployment/troubleshooting.md"]
    seen = [
        message
        for symptom in re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
        for message in CODE.findall(symptom)
    ]
    for message in seen:
        begins = " ".join(message.split()[:3]).rstrip(" …")
        assert message in MESSAGES_OF_OTHERS or begins in source, message
    assert len(seen) > len(MESSAGES_OF_OTHERS)


# Symptoms in docs/containers.md, and their tests.
SEEN = {
    "`port is already allocated`, `address already in use`": "test_port_in_use_is_reported",
    "`app-1 is unhealthy`": "test_production_with_default_password_is_refused",
    "`settings: …` and exit code 2": "test_container_with_wrong_settings_exits_with_one_line_each",
    "`not migrated`, `no database after 30 s`": (
        "test_changed_password_on_existing_volume_is_reported"
    ),
    "`failed to read …/.env`": "test_invalid_compose_input_is_refused",
    "`.env: permission denied`, `.env cannot be read`": (
        "test_unreadable_dot_env_is_named_in_the_error"
    ),
    "`Permission denied: '/srv/…'`": (
        "test_container_of_another_user_cannot_write_into_the_project"
    ),
    "`No space left on device`": "test_write_to_full_volume_returns_503_and_logs_the_reason",
    '`"/uv.lock": not found`': "test_build_without_lock_fails",
    "`invalid reference format`": "test_invalid_compose_input_is_refused",
    "`No such image`": "test_invalid_compose_input_is_refused",
}


def test_every_symptom_in_containers_page_has_a_test(baked: Baked) -> None:
    page = pages(baked.path)["docs/containers.md"].partition("| symptom |")[2]
    assert set(re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)) == set(SEEN)
    files = ("test_containers.py", "test_development_containers.py")
    tests = "".join((ROOT / "tests" / file).read_text(encoding="utf-8") for file in files)
    for name in SEEN.values():
        assert f"def {name}(" in tests


# The kinds of containers in test_memory_limits.py, by the row of docs/containers.md.
LIMITED = {
    "`app`, default options": "default",
    "`app`, accounts and no other option": "accounts",
    "`app`, every option of the template": "every option",
    "`worker`, every option": "worker",
}


def test_memory_limits_of_the_page_are_those_of_the_container_tests(baked: Baked) -> None:
    page = pages(baked.path)["docs/containers.md"]
    rows = re.findall(r"^\| (`(?:app|worker)`, .*?) \|.* (\d+) MiB \|$", page, re.M)
    tested = {kind: limit for kind, (_, _, limit) in SERVICES.items()} | PROCESSES
    assert len(rows) >= 2
    for container, limit in rows:
        assert tested[LIMITED[container]] == f"{limit}m", container


@pytest.fixture(scope="module", params=BAKES.values(), ids=BAKES)
def installed(
    bake: Bake, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return install(bake(lock=True, **request.param), tmp_path_factory.mktemp("installed"))


def install(baked: Baked, folder: Path) -> Path:
    project = baked.copy_to(folder / "project")
    command = ["uv", "sync", "--quiet", "--locked", "--no-python-downloads", "--python"]
    subprocess.run([*command, sys.executable], cwd=project, check=True)
    return project


LISTING = """
import json
from app.main import create_app
from app.settings import Settings
from fastapi.routing import iter_route_contexts

print(json.dumps([route.path for route in iter_route_contexts(create_app(Settings()).routes)]))
"""


@pytest.mark.slow
def test_every_endpoint_in_the_docs_is_served(installed: Path) -> None:
    answer = subprocess.run(
        ["uv", "run", "--quiet", "python", "-c", LISTING],
        cwd=installed, env=environment(installed), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    served = {re.sub(r"{.*?}", "{}", path) for path in json.loads(answer.splitlines()[-1])}
    for page, code in named(installed):
        match = re.fullmatch(r"(?:(?:GET|POST|PUT|PATCH|DELETE) )?(/[\w/{}.-]*)", code)
        if match and match[1] not in NOT_SERVED:
            path = re.sub(r"{.*?}", "{}", match[1]).rstrip(".")
            assert path in served or path in IMAGINED, f"{page}: {code}"


@pytest.mark.slow
def test_every_command_in_the_docs_exists(installed: Path) -> None:
    commands = set()
    for page, text in pages(installed).items():
        for code in [*CODE.findall(FENCE.sub("", text)), *shell_blocks(text)]:
            found = re.findall(r"(?:^|uv run |exec -T app )app ([a-z]+)((?: --[a-z]+)*)", code)
            commands |= {(page, *match) for match in found}
    assert {"serve", "check", "env"} <= {name for _, name, _ in commands}
    helps: dict[str, str] = {}
    for page, name, options in sorted(commands):
        if name not in helps:
            result = subprocess.run(
                ["uv", "run", "--quiet", "app", name, "--help"],
                cwd=installed, env=environment(installed), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert result.returncode == 0, f"{page}: app {name}"
            helps[name] = result.stdout
        assert all(option in helps[name] for option in options.split()), f"{page}: {name}{options}"


# --- command blocks -------------------------------------------------------------------------------

# STOPPED runs while `make dev` does not serve.
PLAIN, STOPPED, CONTAINERS = "plain", "stopped", "containers"


@dataclass(frozen=True)
class NotAsWritten:
    """A block or a target that no test runs as it is written."""

    reason: str  # CONTRIBUTING.md repeats it
    test: str  # of a part of it


SECRET = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
RESTORED = "tests/test_docs.py::test_backup_page_restores_the_data"
MADE = "tests/test_docs.py::test_commands_and_make_targets_succeed_while_make_dev_serves"
MADE_IN_CONTAINERS = "tests/test_containers.py::test_make_targets_for_containers_work"
DUMPED = "tests/test_containers.py::test_restore_after_data_loss_gives_the_same_rows"
DEVELOPMENT = "docker compose -f compose.yaml -f compose.dev.yaml"
DEVELOPED = "tests/test_development_containers.py::test_docker_user_without_python_does_daily_work"
SERVED = (
    "tests/test_development_containers.py::test_service_on_the_host_uses_the_servers_of_compose"
)
DEBUGGED = "tests/test_editors.py::test_tasks_run_and_a_debugger_attaches_to_the_container"
CHECKED = "tests/test_baked_service.py::test_every_pair_of_answers_passes_checks_and_tests"
ACCOUNT = NotAsWritten(
    "needs an account; a stand-in accepts the documented commands and options only",
    "tests/test_docs.py::test_account_blocks_use_documented_commands_of_railway",
)
OBSERVED = NotAsWritten(
    "no test starts Grafana, and Debian's Prometheus replaces the image of Prometheus",
    "tests/test_containers.py::test_prometheus_sees_every_replica_with_the_token",
)
A_CLONE = "a local repository replaces GitHub"
UPDATED = "tests/test_update.py::test_update_page_brings_new_files_and_the_tested_versions"
A_PART = "instead of all tests of the service, those run that the page affects"
ADD_A_FEATURE = "tests/test_add_a_feature.py::test_feature_of_the_docs_page_passes_all_checks"
CALL_ANOTHER_SERVICE = (
    "tests/test_call_another_service.py::test_client_of_the_docs_page_passes_all_checks"
)
ROLLED_OUT = NotAsWritten(
    "a stand-in replaces kind, and the cluster has older API versions",
    "tests/test_kubernetes_page.py::test_commands_of_the_page_work_in_their_order",
)
ADD_A_SETTING = "tests/test_add_a_setting.py::test_setting_of_the_docs_page_passes_all_checks"
# The kind or the test of a block of commands, by page and first line, and of a make target.
BLOCKS: dict[tuple[str, str], str | NotAsWritten] = {
    ("README.md", "uv run app dev"): (
        "tests/test_docs.py::test_make_targets_run_the_commands_beside_them"
    ),
    **{
        ("docs/accounts.md", beginning): (
            "tests/test_first_minutes.py::test_commands_of_the_accounts_page_succeed"
        )
        for beginning in (
            "url=http://localhost:8000/accounts",
            "verification=$(uv run app mails",
            """forgotten='{"email": "grace@navy.example"}'""",
            "reset=$(uv run app mails",
            'tokens=$(curl --silent --show-error --fail-with-body "$url/login"',
            'bearer="Authorization: Bearer',
            "change=$(uv run app mails",
            "uv run app accounts grant hopper@navy.example admin",
            'sessions=$(curl --silent --show-error --fail-with-body "$url/me/sessions"',
            'curl --silent --show-error --fail-with-body "$url/me/export"',
        )
    },
    ("docs/accounts.md", SECRET): PLAIN,
    ("docs/accounts.md", f"{DEVELOPMENT} --profile mail up"): NotAsWritten(
        "no test starts Mailpit",
        "tests/test_browser.py::"
        "test_person_registers_confirms_logs_in_and_replaces_a_password",
    ),
    ("docs/add-a-feature.md", 'uv run app migration "add orders"'): ADD_A_FEATURE,
    ("docs/add-a-small-feature.md", 'uv run app migration "add products"'): ADD_A_FEATURE,
    ("docs/add-a-feature.md", "make check"): NotAsWritten(A_PART, ADD_A_FEATURE),
    ("docs/add-a-setting.md", "echo 'PAYMENT_KEY=of-development' >>.env"): ADD_A_SETTING,
    ("docs/add-a-setting.md", "make docs"): ADD_A_SETTING,
    ("docs/call-another-service.md", 'uv add "stamina>=26.1,<27"'): CALL_ANOTHER_SERVICE,
    ("docs/call-another-service.md", "make docs"): CALL_ANOTHER_SERVICE,
    ("docs/call-another-service.md", "make fix"): NotAsWritten(A_PART, CALL_ANOTHER_SERVICE),
    ("docs/containers.md", "docker build --tag example-service:local ."): CONTAINERS,
    ("docs/containers.md", "docker compose up --build --wait"): CONTAINERS,
    ("docs/containers.md", "docker compose up --wait --scale app=3"): CONTAINERS,
    ("docs/containers.md", "for replica in $(docker compose ps --quiet app); do"): CONTAINERS,
    ("docs/containers.md", f"{DEVELOPMENT} up --build"): (
        "tests/test_containers.py::test_changed_source_is_served_without_a_rebuild"
    ),
    ("docs/containers.md", 'echo "HOST_UID=$(id -u)" >>.env'): DEVELOPED,
    ("docs/containers.md", f"{DEVELOPMENT} run --rm app"): DEVELOPED,
    ("docs/containers.md", f"{DEVELOPMENT} run --rm uv"): DEVELOPED,
    ("docs/containers.md", f"{DEVELOPMENT} -f compose.debug.yaml up"): DEBUGGED,
    ("docs/containers.md", "docker compose -f compose.servers.yaml up --wait"): SERVED,
    ("docs/containers.md", "docker compose -f compose.servers.yaml exec"): SERVED,
    ("docs/containers.md", "docker compose -f compose.test.yaml run --rm --build test"): (
        "tests/test_containers.py::test_tests_run_in_containers_and_leave_nothing"
    ),
    ("docs/delete-the-example.md", "make check"): (
        "tests/test_delete_the_example.py::"
        "test_example_deleted_by_the_docs_page_leaves_own_features_and_passes_all_checks"
    ),
    ("docs/delete-the-example.md", 'uv run app migration "drop bookmarks"'): (
        "tests/test_delete_the_example.py::"
        "test_migration_of_the_docs_page_drops_the_tables_of_the_example"
    ),
    (
        "docs/development-database.md",
        'uv run app psql -c "SELECT version_num FROM alembic_version"',
    ): PLAIN,
    ("docs/development-database.md", "uv run app migrate --to 0001"): PLAIN,
    ("docs/development-database.md", "uv run app db reset --seed"): STOPPED,
    ("docs/jobs.md", "uv run app worker"): (
        f"{TEMPLATE}/tests/processes/test_workers.py::"
        "test_running_job_is_finished_on_sigterm"
    ),
    ("docs/migrations.md", 'uv run app migration "add orders"'): (
        "tests/test_migrations_page.py::test_recipes_of_the_docs_page_are_safe_and_work"
    ),
    ("docs/monitoring.md", "docker compose --profile observability up --build --wait"): OBSERVED,
    ("docs/monitoring.md", "promtool test rules observability/alerts_test.yml"): (
        "tests/test_observability.py::"
        "test_alerts_pass_their_promtool_tests"
    ),
    ("docs/updating.md", "uvx cruft update --skip-apply-ask"): NotAsWritten(
        f"{A_CLONE}; {A_PART}", UPDATED
    ),
    ("docs/updating.md", "uvx cruft update --variables-to-update"): NotAsWritten(A_CLONE, UPDATED),
    ("docs/updating.md", 'uv run app migration "create the tables of the option"'): (
        "tests/test_update.py::"
        "test_tables_of_an_option_are_made_and_dropped_by_the_projects_own_migrations"
    ),
    ("docs/updating.md", "uvx cruft link https://github.com/org/template --checkout"): NotAsWritten(
        A_CLONE, "tests/test_update.py::test_project_without_cruft_is_linked_by_the_docs_page"
    ),
    ("docs/webhooks.md", "id=msg_$(openssl rand -hex 16) now=$(date +%s)"): (
        f"{TEMPLATE}/tests/processes/test_webhook_processes.py::"
        "test_clients_of_the_webhooks_page_sign_correctly"
    ),
    ("docs/webhooks.md", """body='{"zen": "Keep it logically awesome."}'"""): (
        f"{TEMPLATE}/tests/processes/test_webhook_processes.py::"
        "test_clients_of_the_webhooks_page_sign_correctly"
    ),
    ("docs/deployment/README.md", SECRET): PLAIN,
    ("docs/deployment/ci-cd.md", "python3 scripts/smoke_test.py http://localhost:8000"): PLAIN,
    ("docs/deployment/ci-cd.md", "uv run python scripts/check_rollback.py HEAD"): PLAIN,
    ("docs/deployment/ci-cd.md", "python3 scripts/deploy_to_kubernetes.py"): (
        "tests/test_kubernetes_pipelines.py::test_new_version_replaces_the_pods_by_digest"
    ),
    ("docs/deployment/troubleshooting.md", "uv run app check"): PLAIN,
    **dict.fromkeys(
        [
            ("docs/deployment/kubernetes.md", beginning)
            for beginning in (
                "kind create cluster",
                "make image",
                "kind delete cluster",
                "kubectl apply -k deploy/kubernetes/administration",
                "kubectl create secret generic example-service",
                "kubectl create secret docker-registry registry",
                "kubectl rollout restart deployment",
                "kubectl delete job example-service-migration",
                "kubectl apply -k deploy/kubernetes/overlays/production",
                "kubectl rollout undo deployment/example-service",
                "kubectl exec deployment/example-service",
                "kubectl logs",
                "kubectl delete job backup-now",
                "kubectl delete job example-service-restore",
            )
        ],
        ROLLED_OUT,
    ),
    ("docs/deployment/kubernetes.md", "uv run python scripts/make_prometheus_rule.py"): (
        f"{TEMPLATE}/tests/infrastructure/scripts/test_make_prometheus_rule.py::"
        "test_script_writes_the_rule_of_changed_alerts"
    ),
    ("docs/deployment/backup.md", 'pg_dump "$DATABASE_URL"'): RESTORED,
    ("docs/deployment/backup.md", 'createdb --maintenance-db="$DATABASE_URL" restored'): RESTORED,
    ("docs/deployment/backup.md", "docker compose up --build --wait"): CONTAINERS,
    ("docs/deployment/backup.md", "rm rehearsal.dump"): CONTAINERS,
    ("docs/deployment/rollback.md", "IMAGE_TAG=first docker compose up --build --wait"): CONTAINERS,
    ("docs/deployment/rollback.md", "rm src/app/migrations/versions/9000_rehearse.py"): CONTAINERS,
    **dict.fromkeys(
        [("Makefile", f"make {t}") for t in ("help", "install", "migrate", "migration")], MADE
    ),
    **dict.fromkeys([("Makefile", f"make {t}") for t in ("docs", "seed", "doctor")], MADE),
    ("Makefile", "make dev"): MADE,
    ("Makefile", "make lock"): UPDATED,
    ("Makefile", "make check"): CHECKED,
    ("Makefile", "make test"): CHECKED,
    ("Makefile", "make test-fast"): CHECKED,
    ("Makefile", "make fix"): CALL_ANOTHER_SERVICE,
    ("Makefile", "make image"): (
        "tests/test_pipeline_images.py::test_image_job_builds_tests_and_saves_the_image"
    ),
    **dict.fromkeys(
        [("Makefile", f"make {t}") for t in ("up", "down", "logs", "shell", "db-shell")],
        MADE_IN_CONTAINERS,
    ),
    ("Makefile", "make observe"): OBSERVED,
    ("Makefile", "make up-dev"): (
        "tests/test_containers.py::test_changed_source_is_served_without_a_rebuild"
    ),
    ("Makefile", "make up-debug"): DEBUGGED,
    ("Makefile", "make servers"): SERVED,
    ("Makefile", "make clean-volumes"): (
        "tests/test_development_containers.py::test_clean_volumes_deletes_the_data_after_a_yes"
    ),
    ("Makefile", "make test-in-containers"): (
        "tests/test_containers.py::test_tests_run_in_containers_and_leave_nothing"
    ),
    **dict.fromkeys(
        [("Makefile", f"make {t}") for t in ("db-dump", "db-restore", "db-reset")], DUMPED
    ),
}  # fmt: skip
# Documented commands and options of Railway's command line that the docs use.
RAILWAY = {
    "config apply": set(),
    "domain": {"--service"},
    "init": {"--name"},
    "login": set(),
    "logs": {"--filter", "--service"},
    "postgres pitr backup create": {"--name", "--service"},
    "postgres pitr schedule set": {"--daily", "--weekly", "--service"},
    "up": {"--ci", "--service"},
    "variable set": {"--service", "--skip-deploys", "--stdin"},
}
STAND_IN = """#!/bin/sh
# Records its arguments and its input. Runs .railway/railway.py, as Railway's own command does.
set -e
printf '%s\\t' "$@" >> "$CALLS"
case "$1" in config)
  python3 -c "import runpy; runpy.run_path('.railway/railway.py')['main']().to_graph()" ;;
esac
case "$*" in *--stdin*) cat >> "$CALLS" ;; *) echo >> "$CALLS" ;; esac
"""


def shell_blocks(text: str) -> list[str]:
    found = []
    for indent, language, block in FENCE.findall(text):
        if language == "sh":
            found.append(re.sub(rf"^{indent}", "", block, flags=re.MULTILINE))
    return found


def beginning(block: str) -> str:
    """Return the first line, or the part of it that is listed in BLOCKS."""
    line = block.splitlines()[0]
    return next((known for _, known in BLOCKS if line.startswith(f"{known} ")), line)


def blocks_of(folder: Path) -> dict[tuple[str, str], str]:
    listed = [
        ((page, beginning(block)), block)
        for page, text in pages(folder).items()
        for block in shell_blocks(text)
    ]
    assert len(dict(listed)) == len(listed), "two blocks of a page have the same first line"
    return dict(listed)


def targets_of(folder: Path) -> list[str]:
    makefile = (folder / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)


def kind_of(key: tuple[str, str], block: str) -> str | NotAsWritten | None:
    return ACCOUNT if re.search(r"(^|\s)railway ", block) else BLOCKS.get(key)


@pytest.mark.posix
def test_every_command_block_has_a_test(bake: Bake) -> None:
    seen = {}
    for answers in BAKES.values():
        folder = bake(**answers).path
        seen.update(blocks_of(folder))
        seen.update({("Makefile", f"make {t}"): f"make {t}" for t in targets_of(folder)})
    for key, block in seen.items():
        assert kind_of(key, block), f"no test runs {key}"
        subprocess.run(["sh", "-n"], input=block.encode(), check=True)
    assert set(BLOCKS) <= set(seen), "a listed block does not exist"
    assert_tests_exist(BLOCKS)


# The test of this file runs the commands of the other.
RUNS = {"tests/test_pipeline_images.py": f"{TEMPLATE}/.github/workflows/ci.yml"}


def assert_tests_exist(listed: dict[tuple[str, str], str | NotAsWritten]) -> None:
    """Every listed test exists, and the code around the test of a make target names the target."""
    for (page, command), how in listed.items():
        test = how.test if isinstance(how, NotAsWritten) else how
        path, _, name = test.partition("::")
        if not name:
            continue
        code = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {name}(" in code, test
        if page == "Makefile" and test == how:
            if path == "tests/test_docs.py":  # BLOCKS names every target
                code = code.partition(f"def {name}(")[2].partition("\n\n\n")[0]
            code += (ROOT / RUNS[path]).read_text(encoding="utf-8") if path in RUNS else ""
            target = command.removeprefix("make ")
            assert re.search(rf'make {target}\b|"{target}"', code), f"{test} runs no {command}"


def run_block(block: str, folder: Path, env: dict[str, str]) -> str:
    result = subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def complete(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(bake(lock=True, **EVERY_OPTION), tmp_path_factory.mktemp("complete"))


def make(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["make", *arguments],
        cwd=folder, env=environment(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_commands_and_make_targets_succeed_while_make_dev_serves(complete: Path) -> None:
    linter = complete / ".venv" / "bin" / "ruff"
    run_block("uv pip uninstall --quiet ruff", complete, environment(complete))
    assert not linter.exists()
    make(complete, "install")
    assert linter.exists()
    commit_everything(complete)  # for the check of a rollback
    env = environment(complete)
    with serving(["make", "dev"], complete, env) as url:
        assert (complete / ".data" / "postgres" / "PG_VERSION").read_text() == "18\n"
        ran = []
        for key, block in blocks_of(complete).items():
            if kind_of(key, block) == PLAIN:
                local = block.replace("http://localhost:8000", url)
                assert run_block(local, complete, env).strip(), key
                ran.append(PLAIN)
        assert ran == [how for how in BLOCKS.values() if how == PLAIN]
        listed = [line.split() for line in make(complete, "docs").splitlines()]
        assert {"unchanged"} == {words[-1] for words in listed if words[0] != "uv"}
        make(complete, "migrate")
        assert re.search(r"^[1-9]\d* rows added$", make(complete, "seed"), re.MULTILINE)
        assert re.search(r"^migrations +ok", make(complete, "doctor"), re.MULTILINE)
        listed = [line.split()[0] for line in make(complete, "help").splitlines()]
        assert sorted(listed) == sorted(targets_of(complete))
    for key, block in blocks_of(complete).items():
        if kind_of(key, block) == STOPPED:
            assert re.search(r"^[1-9]\d* rows added$", run_block(block, complete, env), re.M), key
    make(complete, "migration", "m=add notes")  # a new file would restart the service
    (written,) = (complete / "src/app/migrations/versions").glob("*_add_notes.py")
    written.unlink()


def commit_everything(folder: Path) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "A"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


SAME_COMMAND = {
    "dev": ("README.md", "uv run app dev"),
    "servers": ("docs/containers.md", "docker compose -f compose.servers.yaml up --wait"),
    "up": ("docs/containers.md", "docker compose up --build --wait"),
    "observe": (
        "docs/monitoring.md",
        "docker compose --profile observability up --build --wait",
    ),
}


IN_CONTAINER = (
    f"HOST_UID=${{HOST_UID:-$(id -u)}} HOST_GID=${{HOST_GID:-$(id -g)}} {DEVELOPMENT} run --rm "
    "--build app"
)


def in_container(folder: Path) -> list[tuple[list[str], list[str]]]:
    """Return targets of make and plain commands of the table of tasks in docs/containers.md."""
    page = (folder / "docs" / "containers.md").read_text(encoding="utf-8")
    _, _, table = page.partition("after `docker compose run --rm app` |\n")
    _, *rows = table.partition("\n\n")[0].splitlines()
    cells = [re.split(r" ?\| ?", row.strip("| ")) for row in rows]
    return [(CODE.findall(made), CODE.findall(plain)) for _, made, plain in cells]


@pytest.mark.posix
def test_make_targets_run_the_commands_beside_them(baked: Baked) -> None:
    """Compare the tables and blocks of the docs. Other tests run each of the targets."""
    readme = (baked.path / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| `make (.*?)` \| (.*) \|$", readme, re.MULTILINE)
    expected = {target: CODE.findall(commands) for target, commands in rows}
    assert {"test", "seed", "doctor"} <= set(expected)
    found = blocks_of(baked.path)
    for target, key in SAME_COMMAND.items():
        if key in found:
            expected[target] = found[key].splitlines()
    for made, plain in in_container(baked.path):
        for target in made:
            expected[target.removeprefix("make ")] = [f"{IN_CONTAINER} {one}" for one in plain]
    for target, commands in expected.items():
        printed = make(baked.path, "--dry-run", *shlex.split(target))
        run = [line for line in printed.splitlines() if not line.startswith("echo ")]
        assert run == commands, target


@pytest.mark.posix
@pytest.mark.parametrize("target", ["dev", "install", "test", "test-fast"])
def test_make_target_that_needs_python_is_refused_in_a_container(bake: Bake, target: str) -> None:
    command = ["make", "--dry-run", target, "in=container"]
    result = subprocess.run(command, cwd=bake().path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert f"make {target} runs on this machine only: use make up-dev" in result.stderr


@pytest.mark.slow
def test_account_blocks_use_documented_commands_of_railway(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "railway").write_text(STAND_IN)
    (tmp_path / "railway").chmod(0o755)
    calls = tmp_path / "calls"
    env = environment(complete) | {"CALLS": str(calls)}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    for key, block in blocks_of(complete).items():
        if kind_of(key, block) == ACCOUNT:
            run_block(block, complete, env)
    used = set()
    for line in calls.read_text().splitlines():
        *arguments, given = line.split("\t")
        words = " ".join(arguments)
        (command,) = [name for name in RAILWAY if f"{words} ".startswith(f"{name} ")]
        options = {argument for argument in arguments if argument.startswith("--")}
        assert options <= RAILWAY[command], words
        assert ("--stdin" in options) == bool(given), words
        assert len(given) >= 32 or not given, "a generated secret"
        used.add(command)
    assert used == set(RAILWAY)


def commands_in_containers(folder: Path, page: str) -> list[str]:
    return [
        block
        for key, block in blocks_of(folder).items()
        if key[0] == page and kind_of(key, block) == CONTAINERS
    ]


@pytest.mark.containers
@pytest.mark.thorough
@pytest.mark.parametrize(
    "page", ["docs/containers.md", "docs/deployment/rollback.md", "docs/deployment/backup.md"]
)
def test_docker_command_blocks_succeed(stack: Stack, project: Path, page: str) -> None:
    """Run the blocks of a page in order, in a separate stack."""
    env = {k: v for k, v in stack.environment.items() if k != "IMAGE_TAG"}
    printed = "".join(
        run_block(block, project, env) for block in commands_in_containers(project, page)
    )
    if page == "docs/deployment/rollback.md":
        revisions = re.findall(r"^\d{4}$", printed, re.MULTILINE)
        assert revisions == ["9000", "9000"]
    if page == "docs/deployment/backup.md":
        assert re.search(r"^migrations? +ok", printed, re.MULTILINE), printed
    assert not list(project.rglob("*rehears*"))


@pytest.mark.containers
@pytest.mark.thorough
def test_backup_page_restores_the_data(stack: Stack, project: Path) -> None:
    stack.up()
    made = stack.psql(
        "INSERT INTO bookmarks (url, title) VALUES ('https://a.example', 'A') RETURNING id"
    )
    url = "DATABASE_URL=postgresql://app:development@127.0.0.1:5432/app"
    inside = ("exec", "-T", "--workdir", "/tmp", "--env", url, "database")
    for key, block in blocks_of(project).items():
        if BLOCKS.get(key) == RESTORED:
            stack.compose(*inside, "sh", "-ec", block)
    restored = stack.compose(
        "exec", "-T", "database", "psql", "-U", "app", "-d", "restored", "-Atqc",
        "SELECT id FROM bookmarks",
    )  # fmt: skip
    assert restored == made
