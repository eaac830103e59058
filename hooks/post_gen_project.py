"""Turn the copied service, which has every option, into the project of the answers.

Pure functions over text come first. Functions from main() on read and write files. Only the
standard library is used: the hook runs on cookiecutter's interpreter, from a temporary copy.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# Files and folders of an option. A path under two options is kept if both are chosen. Single lines
# of other files have markers.
OWNED = {
    "auth": (
        "src/app/auth",
        "tests/features/bookmarks/test_bookmark_access.py",
        "tests/features/passages/test_passage_access.py",
        "tests/infrastructure/auth",
        "tests/infrastructure/jobs/test_job_access.py",
        "tests/support/authentication.py",
        "tests/support/oidc_provider.py",
    ),
    "accounts": (
        "docs/accounts.md",
        "docs/decisions/0012-mails-are-composed-when-they-are-sent.md",
        "scripts/smoke_account.py",
        "src/app/auth/login.py",
        "src/app/jobs/personal_data.py",
        "src/app/auth/settings.py",
        "src/app/auth/tokens.py",
        "src/app/features/accounts",
        "src/app/dev/mail",
        "src/app/mail",
        "src/app/migrations/versions/0004_create_accounts.py",
        "src/app/migrations/versions/0007_extend_accounts.py",
        "src/app/migrations/versions/0008_create_attempts.py",
        "src/app/migrations/versions/0009_create_api_keys.py",
        "src/app/migrations/versions/0010_create_provider_links.py",
        "src/app/migrations/versions/0011_validate_acts.py",
        "src/app/account_commands.py",
        "src/app/auth/roles.py",
        "tests/processes/test_account_commands.py",
        "tests/features/accounts",
        "tests/infrastructure/auth/test_auth_settings.py",
        "tests/infrastructure/auth/test_tokens.py",
        "tests/support/login_accounts.py",
        "tests/support/login_provider.py",
        "tests/support/provider_logins.py",
        "tests/infrastructure/jobs/test_personal_jobs.py",
        "tests/infrastructure/dev/mail",
        "tests/infrastructure/mail",
        "tests/processes/test_mail_processes.py",
        "tests/support/sent_mails.py",
        "tests/support/smtp_server.py",
    ),
    "oidc": (
        "docs/oidc.md",
        "src/app/auth/oidc",
        "tests/infrastructure/auth/oidc",
        "tests/support/provider_accounts.py",
    ),
    "metrics": (
        "deploy/kubernetes/components/monitoring",
        "docs/monitoring.md",
        "observability",
        "scripts/make_prometheus_rule.py",
        "tests/infrastructure/scripts/test_make_prometheus_rule.py",
        "src/app/jobs/metrics.py",
        "tests/infrastructure/jobs/test_job_metrics.py",
        "tests/processes/test_worker_metrics.py",
        "src/app/metrics",
        "tests/infrastructure/metrics",
        "tests/processes/test_metrics_of_processes.py",
        "tests/support/metric_samples.py",
    ),
    "webhooks": (
        "docs/webhooks.md",
        "src/app/features/webhooks",
        "src/app/migrations/versions/0003_create_webhooks.py",
        "tests/features/webhooks",
        "tests/processes/test_webhook_jobs.py",
        "tests/processes/test_webhook_processes.py",
        "tests/support/webhook_senders.py",
    ),
    "pgvector": (
        "docs/passages.md",
        "src/app/features/passages",
        "src/app/migrations/versions/0002_create_passages.py",
        "tests/features/passages",
        "tests/processes/test_passage_dimensions.py",
    ),
    "redis": (
        "deploy/kubernetes/overlays/local/cache.yaml",
        "src/app/cache",
        "src/app/dev/valkey.py",
        "src/app/tracing/redis.py",
        "tests/infrastructure/cache",
        "tests/support/cached_words.py",
        "tests/infrastructure/dev/test_valkey.py",
        "tests/features/bookmarks/test_bookmark_cache.py",
        "tests/infrastructure/tracing/test_tracing_redis.py",
        "tests/support/valkey_server.py",
    ),
    "rate_limit": (
        "docs/rate-limits.md",
        "src/app/rate_limit",
        "tests/features/accounts/test_account_limits.py",
        "tests/infrastructure/rate_limit",
        "tests/processes/test_rate_limited_processes.py",
    ),
    "sentry": (
        "docs/error-tracking.md",
        "src/app/sentry",
        "tests/infrastructure/sentry",
        "tests/processes/test_reporting_processes.py",
        "tests/support/error_receiver.py",
    ),
    "tracing": (
        "docs/tracing.md",
        "src/app/jobs/tracing.py",
        "src/app/tracing",
        "tests/infrastructure/tracing",
        "tests/processes/test_traced_processes.py",
        "tests/support/trace_collector.py",
    ),
    "worker": (
        "deploy/kubernetes/components/worker",
        "deploy/kubernetes/components/worker-scaling",
        "docs/jobs.md",
        "observability/grafana/dashboards/jobs.json",
        "src/app/features/bookmarks/imports.py",
        "src/app/features/bookmarks/jobs.py",
        "src/app/features/webhooks/jobs.py",
        "src/app/jobs",
        "src/app/mail/jobs.py",
        "src/app/mail/worker_development.py",
        "tests/infrastructure/mail/test_mail_jobs.py",
        "src/app/migrations/versions/0005_create_jobs.py",
        "src/app/worker.py",
        "src/app/worker_commands.py",
        "tests/features/bookmarks/test_bookmark_jobs.py",
        "tests/processes/test_webhook_jobs.py",
        "tests/infrastructure/jobs",
        "tests/infrastructure/kubernetes/test_worker_manifests.py",
        "tests/infrastructure/sentry/test_sentry_jobs.py",
        "tests/infrastructure/tracing/test_tracing_jobs.py",
        "tests/processes/test_job_commands.py",
        "tests/processes/test_worker_health.py",
        "tests/processes/test_worker_metrics.py",
        "tests/processes/test_worker_process.py",
        "tests/processes/test_workers.py",
        "tests/support/stored_jobs.py",
        "tests/support/worker_copies.py",
        "tests/support/worker_setup.py",
    ),
    "postgres": (
        "docs/decisions/0011-jobs-in-postgresql.md",
        "src/app/jobs/pgqueuer",
        "src/app/migrations/pgqueuer.py",
        "src/app/migrations/versions/0006_create_pgqueuer.py",
        "tests/infrastructure/jobs/test_pgqueuer.py",
    ),
    "celery": (
        "src/app/jobs/celery",
        "tests/processes/test_celery_workers.py",
    ),
    "ci": (
        "deploy/kubernetes/administration/pipeline",
        "deploy/kubernetes/administration/production",
        "deploy/kubernetes/administration/staging",
        "docs/deployment/ci-cd.md",
        "docs/deployment/kubernetes-access.md",
        "scripts/check_rollback.py",
        "scripts/deploy_to_railway.py",
        "scripts/deploy_to_render.py",
        "scripts/kubernetes_access.py",
        "scripts/notify.py",
        "tests/infrastructure/scripts/test_check_rollback.py",
        "tests/infrastructure/scripts/test_deploy_to_railway.py",
        "tests/infrastructure/scripts/test_deploy_to_render.py",
        "tests/infrastructure/scripts/test_kubernetes_access.py",
        "tests/infrastructure/scripts/test_notify.py",
    ),
    "github": (
        ".github/dependabot.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/deploy.yml",
        ".github/workflows/rollback.yml",
        "scripts/kubernetes_credential.py",
        "tests/infrastructure/scripts/test_kubernetes_credential.py",
    ),
    "gitlab": (".gitlab-ci.yml",),
    "deploy": (
        ".github/workflows/deploy.yml",
        ".github/workflows/rollback.yml",
        "scripts/check_rollback.py",
        "scripts/notify.py",
        "tests/infrastructure/scripts/test_check_rollback.py",
        "tests/infrastructure/scripts/test_notify.py",
    ),
    "railway": (
        ".railway/railway.py",
        "docs/decisions/0010-railway-is-described-twice.md",
        "docs/deployment/railway.md",
        "docs/deployment/railway-quick-start.md",
        "railway.json",
        "scripts/deploy_to_railway.py",
        "tests/infrastructure/scripts/test_deploy_to_railway.py",
    ),
    "render": (
        "docs/deployment/render.md",
        "render.yaml",
        "scripts/deploy_to_render.py",
        "tests/infrastructure/scripts/test_deploy_to_render.py",
    ),
    "kubernetes": (
        "deploy",
        "docs/deployment/kubernetes.md",
        "docs/deployment/kubernetes-access.md",
        "scripts/deploy_to_kubernetes.py",
        "scripts/kubernetes_access.py",
        "scripts/kubernetes_credential.py",
        "scripts/make_prometheus_rule.py",
        "tests/infrastructure/kubernetes",
        "tests/infrastructure/scripts/test_deploy_to_kubernetes.py",
        "tests/infrastructure/scripts/test_kubernetes_access.py",
        "tests/infrastructure/scripts/test_kubernetes_credential.py",
        "tests/infrastructure/scripts/test_make_prometheus_rule.py",
        "tests/support/manifests.py",
    ),
}

CHOICES = ("auth", "worker", "ci", "deploy")  # questions with other answers than yes and no

# Text of the template, and the answer that replaces it.
WORDS = {
    "example-service": "project_slug",
    "Example Service": "project_name",
    "A FastAPI service with PostgreSQL.": "description",
    "Ada Lovelace": "author_name",
    "ada@example.com": "author_email",
}
ANY_WORD = re.compile("|".join(map(re.escape, WORDS)))
PYTHON_VERSION = re.compile(
    r'(?<=^python_version = ")3\.14(?=")|(?<=Python )3\.14(?= in production)'
    r"|(?<=^FROM python:)3\.14(?=-slim)|(?<= python-version: \")3\.14(?=\")"
    r"|(?<=-python)3\.14(?=-trixie)",
    re.M,
)
# Without pgvector the image is `postgres`. Markers can only drop lines, and an image is required.
PGVECTOR_IMAGE = re.compile(r"((?<=image: )|(?<=- name: ))pgvector/pgvector:pg(?=\d+$)", re.M)
# The version of the template that made the project. The template folder itself has none.
VERSION = re.compile(r"(?<= version )0\.0\.0(?= of its template)|(?<= --checkout v)0\.0\.0")
LICENSE = re.compile(r'(?<=^license = ")MIT(?=")', re.M)
LICENSE_NAMES = {"Proprietary": "LicenseRef-Proprietary"}  # https://spdx.org/licenses/

APP = "src/app/"
LAYER = re.compile(r'^    "(?P<names>[^"\n]*\(\w+\)[^"\n]*)",\n', re.M)
LICENSES = "licenses/"
VERSIONS = "src/app/migrations/versions/"
MIGRATION = re.compile(re.escape(VERSIONS) + r"\d{4}_\w+\.py")
REVISION = re.compile(r"(?<=^revision = ).*", re.M)
DOWN_REVISION = re.compile(r"(?<=^down_revision = ).*", re.M)

NAMES = r"(?P<names>[a-z_]+(?:, [a-z_]+)*)"
BEGIN = re.compile(rf"\s*(?:#|<!--) option: {NAMES}(?: -->)?")
END = re.compile(r"\s*(?:#|<!--) end option(?: -->)?")
TRAILING = re.compile(rf"(?P<code>.*\S)  # option: {NAMES}")
TEMPLATE_ONLY = re.compile(r".*  # in the template only")

# Ignored by git: files that development in the template folder creates.
LEFTOVERS = {
    *(".venv", ".data", ".env", "uv.lock", "dist", "build", "__pycache__"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache"),
}
# Creates uv.lock from the tested versions. FastAPI is a dependency already, so pyproject.toml stays
# the same.
LOCK = ("uv", "add", "--no-sync", "--quiet", "--constraints", "constraints.txt", "fastapi")
LOCK_SECONDS = 120
UNFINISHED = ".unfinished"  # the same name as in pre_gen_project.py


def drop_options(text: str, chosen: set[str]) -> str:
    """Drop the lines of options that were not chosen, and the markers of those that were.

    A marker ends a line (`  # option: redis`) or fences a block (`# option: redis` ...
    `# end option`, in Markdown as HTML comments). Lines with several options are kept if one of
    them is chosen.

    Args:
        text: of a file, with LF line endings.
        chosen: names of options.

    Raises:
        ValueError: the template has an unknown option or a fence that is not closed.
    """
    kept: list[str] = []
    is_inside = is_dropping = was_blank = skips_blank = False
    for number, line in enumerate(text.split("\n"), 1):
        if begin := BEGIN.fullmatch(line):
            if is_inside:
                raise ValueError(f"line {number}: an option inside an option")
            is_inside, is_dropping = True, not _is_chosen(begin["names"], chosen)
            was_blank = _ends_blank(kept)
        elif END.fullmatch(line):
            if not is_inside:
                raise ValueError(f"line {number}: the end of no option")
            skips_blank = is_dropping and was_blank  # keep one blank line of two
            is_inside = is_dropping = False
        elif skips_blank and not line.strip():
            skips_blank = False
        elif is_dropping or TEMPLATE_ONLY.fullmatch(line):
            continue
        elif trailing := TRAILING.fullmatch(line):
            is_kept = _is_chosen(trailing["names"], chosen)
            skips_blank = not is_kept and _ends_blank(kept)
            if is_kept:
                kept.append(trailing["code"])
        else:
            skips_blank = False
            kept.append(line)
    if is_inside:
        raise ValueError("an option without an end")
    return "\n".join(kept)


def _ends_blank(lines: list[str]) -> bool:
    return not lines or not lines[-1].strip()


def _is_chosen(names: str, chosen: set[str]) -> bool:
    wanted = set(names.split(", "))
    if unknown := wanted - set(OWNED):
        raise ValueError(f"no such option: {', '.join(sorted(unknown))}")
    return bool(wanted & chosen)


def fill_in(text: str, answers: dict[str, str]) -> str:
    """Replace the template's own words with the answers, in one pass."""
    text = ANY_WORD.sub(lambda match: answers[WORDS[match[0]]], text)
    text = PYTHON_VERSION.sub(answers["python_version"], text)
    text = VERSION.sub(answers["_version"], text)
    if not answers["pgvector"]:
        text = PGVECTOR_IMAGE.sub("postgres:", text)
    return LICENSE.sub(LICENSE_NAMES.get(answers["license"], answers["license"]), text)


def renumber(migrations: dict[str, str]) -> dict[str, str]:
    """Number migrations without gaps, from 0001 on. Dropped migrations leave gaps.

    Args:
        migrations: text by path. File names begin with four digits.

    Returns:
        text by new path, in the same order.
    """
    renumbered: dict[str, str] = {}
    before = "None"
    for number, (path, text) in enumerate(sorted(migrations.items()), 1):
        revision = f'"{number:04d}"'
        text = DOWN_REVISION.sub(before, REVISION.sub(revision, text))
        folder, slash, name = path.rpartition("/")
        renumbered[f"{folder}{slash}{number:04d}{name[4:]}"] = text
        before = revision
    return renumbered


def chosen_options(answers: dict[str, object]) -> set[str]:
    """Return the chosen options. For a choice, both the question and the answer are options."""
    chosen = {option for option in OWNED if answers.get(option) not in (None, False, "none")}
    return chosen | ({answers.get(question) for question in CHOICES} & set(OWNED))


def rewrite(texts: dict[str, str], answers: dict[str, object]) -> dict[str, str]:
    """Return the files of the project.

    Args:
        texts: the template's files by path, with LF line endings.
        answers: to the questions of cookiecutter.json.

    Raises:
        ValueError: the template has a wrong marker. The message names the file.
    """
    chosen = chosen_options(answers)
    unwanted = unwanted_paths(chosen)
    rewritten: dict[str, str] = {}
    for path, text in texts.items():
        if is_among(path, unwanted):
            continue
        try:
            rewritten[path] = fill_in(drop_options(text, chosen), answers)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    choose_license(rewritten, str(answers["license"]))
    rewritten["pyproject.toml"] = drop_layers(rewritten["pyproject.toml"], rewritten)
    migrations = {p: rewritten.pop(p) for p in texts if MIGRATION.fullmatch(p) and p in rewritten}
    return rewritten | renumber(migrations)


def drop_layers(text: str, paths: Iterable[str]) -> str:
    """Remove modules that do not exist from the layers of the import contract.

    Args:
        text: of pyproject.toml. A layer is a line such as `"(cache) | (metrics)",`. A name in
            parentheses is removed if its module does not exist.
        paths: of the project's files.
    """
    existing = {path.split("/")[2].removesuffix(".py") for path in paths if path.startswith(APP)}

    def keep_existing(layer: re.Match[str]) -> str:
        separator = " : " if " : " in layer["names"] else " | "
        names = layer["names"].split(separator)
        kept = [name for name in names if name[0] != "(" or name[1:-1] in existing]
        return f'    "{separator.join(kept)}",\n' if kept else ""

    return LAYER.sub(keep_existing, text)


def unwanted_paths(chosen: set[str]) -> set[str]:
    return {path for option in set(OWNED) - chosen for path in OWNED[option]}


def is_among(path: str, paths: set[str]) -> bool:
    """Check whether a file is one of these paths or below one of them."""
    parts = path.split("/")
    return any("/".join(parts[:end]) in paths for end in range(1, len(parts) + 1))


def choose_license(texts: dict[str, str], name: str) -> None:
    """Put the chosen license into LICENSE, and remove the folder of the other ones."""
    others = {path: texts.pop(path) for path in list(texts) if path.startswith(LICENSES)}
    texts["LICENSE"] = others.get(LICENSES + name, texts["LICENSE"])


def summary(answers: dict[str, object], problem: str | None) -> str:
    """Return the message at the end of a bake: the project, and the next commands."""
    options = ", ".join(sorted(chosen_options(answers) - set(CHOICES))) or "none"
    lines = [
        "",
        f"{answers['project_name']} is in {answers['project_slug']}/",
        f"  options: {options}; Python {answers['python_version']}; license {answers['license']}",
    ]
    next_steps = [f"cd {answers['project_slug']}", "uv run app dev"]
    if problem:
        lines.append(f"  uv.lock is missing: {problem}; the second command creates it")
        finish = " ".join(part for part in LOCK if part not in ("--no-sync", "--quiet"))
        next_steps.insert(1, finish)
    return "\n".join([*lines, "Next:", *(f"  {step}" for step in next_steps), ""])


def main() -> None:
    answers = json.loads(r"""{{ cookiecutter | jsonify }}""")
    # Ctrl-C here would leave an incomplete project. Ignore it: this takes less than a second.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = Path(UNFINISHED)
    try:
        rewrite_project(Path(), answers, since=began.stat().st_mtime if began.exists() else 0)
    finally:
        began.unlink(missing_ok=True)  # after a failure cookiecutter removes or keeps the project
    signal.signal(signal.SIGINT, before)
    message = summary(answers, lock(Path()))
    sys.stdout.reconfigure(errors="replace")  # the console's encoding may lack letters of a name
    print(message, flush=True)


def rewrite_project(project: Path, answers: dict[str, object], since: float = 0) -> None:
    """Rewrite the files that cookiecutter copied into a folder.

    Args:
        project: the folder. It may have had files before.
        answers: to the questions of cookiecutter.json.
        since: start of the copy, in seconds since the epoch. Older files belong to the user and
            are left alone.
    """
    copied = {p.relative_to(project).as_posix(): p for p in copied_files(project, since)}
    unwanted = unwanted_paths(chosen_options(answers))
    texts: dict[str, str] = {}
    for name, path in copied.items():
        try:
            texts[name] = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:  # an image
            if is_among(name, unwanted):
                remove(path, project)
    try:
        rewritten = rewrite(texts, answers)
    except ValueError as error:
        sys.exit(str(error))
    for name in texts.keys() - rewritten.keys():
        remove(copied[name], project)
    for name, text in rewritten.items():
        path = project / name
        path.write_bytes(text.encode("utf-8"))
        if path.suffix == ".sh":
            path.chmod(path.stat().st_mode | 0o111)  # a copy from Windows has no such bit


def remove(path: Path, project: Path) -> None:
    """Remove a file and the folders that are empty without it."""
    path.unlink()
    for folder in path.parents:
        if folder == project or any(folder.iterdir()):
            return
        folder.rmdir()


def copied_files(project: Path, since: float) -> Iterator[Path]:
    """Yield the files that cookiecutter copied, and remove LEFTOVERS that it copied."""
    for folder, folders, files in os.walk(project):
        for name in sorted(folders):
            path = Path(folder, name)
            if name in LEFTOVERS and is_new(path, since):
                shutil.rmtree(path)
            if name in LEFTOVERS or name == ".git":
                folders.remove(name)
        for name in sorted(files):
            path = Path(folder, name)
            if name == UNFINISHED or not is_new(path, since):
                continue
            if name in LEFTOVERS:
                path.unlink()
            else:
                yield path


def is_new(path: Path, since: float) -> bool:
    """Check whether a file was created since then. A copy may keep its mtime, but not its ctime."""
    status = path.stat()
    return max(status.st_mtime, status.st_ctime) >= since


def lock(project: Path) -> str | None:
    """Create uv.lock from constraints.txt.

    Returns:
        The reason for a failure, or None. A failure does not end the bake: one command creates the
        lock later.
    """
    if shutil.which("uv") is None:
        return "uv is not installed (see https://docs.astral.sh/uv/)"
    try:
        # Try the cache of uv first. Requests to the index for every package take longer than the
        # rest of the bake, and need a network.
        result = run_lock(project, "--offline")
        if result.returncode != 0:
            result = run_lock(project)
    except (OSError, subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        return f"uv did not finish ({type(error).__name__})"
    if result.returncode != 0:
        lines = [line.strip() for line in result.stderr.splitlines()]
        causes = [line for line in lines if line and not line.startswith("hint: ")]
        reason = re.sub("^(cause|error): ", "", (causes or ["no reason given"])[-1])
        return f"uv failed ({reason})"
    return None


def run_lock(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run LOCK with a time limit."""
    return subprocess.run(
        [*LOCK, *options],
        cwd=project,
        env={k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=LOCK_SECONDS,
        check=False,
    )


if __name__ == "__main__":
    main()
