"""A local runner for the workflows of GitHub and the jobs of GitLab.

It runs every command, in order. A job has a fresh clone, its own environment, and a PATH that
begins with stand-ins, which record their calls. USES maps each action to its replacement. Other
actions are an error.
"""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from expressions import Expressions

COMMAND_SECONDS = 600
STAND_IN = """#!/bin/sh
printf '%s\\n' "{name} $*" >> "$CALLS"
case "{name} $*" in $FAILS) echo "{name}: told to fail" >&2; exit 1 ;; esac
{script}
"""


@dataclass
class Job:
    """The result of a job."""

    result: str  # success, failure or skipped
    output: str = ""  # standard output and error
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Machine:
    """The machine of jobs: a repository, and stand-ins with a record of their calls."""

    folder: Path
    repository: Path
    python: str
    services_python: str = ""  # of an environment with the embedded servers
    environment: dict[str, str] = field(default_factory=dict)  # the job's own takes precedence
    overrides: dict[str, str] = field(default_factory=dict)  # takes precedence: ports, timeouts
    fails: str = "nothing"  # a shell pattern of the calls that fail
    identity_token: str = ""  # of jobs that may have one
    identity_url: str = ""  # where jobs of GitHub request it, with their own bearer token

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "artifacts").mkdir()
        (self.folder / "home").mkdir()
        self._calls.touch()
        self.numbers = itertools.count()  # of jobs
        self.used: list[tuple[str, dict[str, str]]] = []
        self.connections: dict[str, int] = {}  # by the image of a service container

    @property
    def _calls(self) -> Path:
        return self.folder / "calls"

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()

    def stand_in(self, name: str, script: str = "") -> None:
        program = self.folder / "bin" / name
        program.write_text(STAND_IN.format(name=name, script=script))
        program.chmod(0o755)

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=folder or self.repository, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, message: str = "A version") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def check_out(self, commit: str, folder: Path, depth: int) -> None:
        """Check out a commit with a number of earlier commits; 0 means all."""
        folder.mkdir(exist_ok=True)
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")
        self.git("init", "--quiet", folder=folder)
        self.git("remote", "add", "origin", self.repository.as_uri(), folder=folder)
        history = (f"--depth={depth}",) if depth else ()
        self.git("fetch", "--quiet", *history, self.repository.as_uri(), commit, folder=folder)
        self.git("checkout", "--quiet", "FETCH_HEAD", folder=folder)

    def variables(self, *more: dict[str, str]) -> dict[str, str]:
        """Return the environment of a command."""
        uv = Path(shutil.which("uv") or "uv").parent
        base = {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(uv), os.defpath]),
            "HOME": str(self.folder / "home"),
            "UV_CACHE_DIR": str(uv_cache()),
            "CALLS": str(self._calls),
            "FAILS": self.fails,
            "CI": "true",
            "PYTEST_DEBUG_TEMPROOT": str(self.folder),
            "MYPY_CACHE_DIR": os.environ["MYPY_CACHE_DIR"],
        }
        merged = base | self.environment
        for variables in more:
            merged |= variables
        return merged | self.overrides | {"UV_CACHE_DIR": base["UV_CACHE_DIR"]}

    @contextmanager
    def service(self, image: str, variables: dict[str, str]) -> Iterator[str]:
        """Run the replacement of a service container, and yield its port."""
        kinds = {"postgres": "postgres", "pgvector/pgvector": "postgres", "redis": "redis"}
        program = Path(__file__).with_name("service_containers.py")
        process = subprocess.Popen(
            [self.services_python, "-W", "ignore", program, kinds[image.split(":")[0]]],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            self.connections[image] = int(process.stdout.readline())
            process.wait(30)
            process.stdout.close()


def logs_of(jobs: dict[str, Job]) -> str:
    """Return the results and the logs of jobs."""
    return "\n".join(f"--- {name}: {job.result}\n{job.output}" for name, job in jobs.items())


def uv_cache() -> Path:
    return Path(
        subprocess.run(
            ["uv", "cache", "dir"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )


def run(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script with `bash -e`, as GitHub and GitLab do."""
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder, env=env, check=False, timeout=COMMAND_SECONDS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


# --- GitHub ---------------------------------------------------------------------------------------


class GitHub:
    """Runs the workflows of GitHub for an event."""

    def __init__(
        self,
        machine: Machine,
        *,
        event: str = "push",
        ref: str = "refs/heads/main",
        is_private: bool = False,
        variables: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
    ) -> None:
        self.machine, self.secrets, self.vars = machine, secrets or {}, variables or {}
        self.sha = machine.git("rev-parse", "HEAD")
        self.github = {
            "actor": "ada",
            "event": {"repository": {"private": is_private}},
            "event_name": event,
            "ref": ref,
            "repository": "Acme/example-service",
            "run_id": "42",
            "server_url": "https://github.com",
            "sha": self.sha,
            "token": "of-the-job",
        }

    def run(
        self,
        name: str,
        only: set[str] | None = None,
        inputs: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
    ) -> dict[str, Job]:
        """Run a workflow, and return its jobs. Jobs of called workflows are `caller/called`."""
        path = self.machine.repository / ".github" / "workflows" / name
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}
        done: dict[str, Job] = {}
        secrets = self.secrets if secrets is None else secrets
        for key, job in workflow["jobs"].items():
            if only is not None and key not in only:
                continue
            needed = job.get("needs", [])
            needed = [needed] if isinstance(needed, str) else needed
            before = {name: done.get(name, Job("success")) for name in needed}
            contexts = {
                "github": self.github,
                "inputs": inputs or {},
                "vars": self.vars,
                "secrets": secrets,
                "needs": {n: {"outputs": j.outputs, "result": j.result} for n, j in before.items()},
            }
            is_well = all(j.result == "success" for j in before.values())
            functions = {
                "success": lambda is_well=is_well: is_well,
                "failure": lambda before=before: "failure" in {j.result for j in before.values()},
            }
            expressions = Expressions(contexts, functions)
            if not expressions.holds(job.get("if", "'yes'")):
                done[key] = Job("skipped")
            elif "uses" in job:
                done |= self._call(key, job, expressions)
            else:
                done |= self._run_rows(key, job, contexts)
        return done

    def _run_rows(self, key: str, job: dict[str, Any], contexts: dict[str, Any]) -> dict[str, Job]:
        """Run a job, or one for each row of its matrix."""
        if "strategy" not in job:
            return {key: self._run_job(job, contexts)}
        assert job["strategy"]["fail-fast"] is False, "a failure would cancel the other rows"
        rows = {
            f"{key} ({', '.join(row.values())})": self._run_job(job, {**contexts, "matrix": more})
            for row, more in rows_of(job["strategy"]["matrix"])
        }
        failed = [name for name, row in rows.items() if row.result != "success"]
        return {key: Job("failure" if failed else "success"), **rows}

    def _call(self, key: str, job: dict[str, Any], expressions: Expressions) -> dict[str, Job]:
        name = job["uses"].removeprefix("./.github/workflows/")
        path = self.machine.repository / job["uses"]
        called = yaml.safe_load(path.read_text())[True]["workflow_call"]  # `on` is true in YAML
        inputs = {k: expressions.fill(v) for k, v in job.get("with", {}).items()}
        secrets = {k: expressions.fill(v) for k, v in job.get("secrets", {}).items()}
        assert set(inputs) == set(called["inputs"]), "undeclared or missing input"
        assert set(secrets) <= set(called["secrets"]), "undeclared secret"
        for inner in yaml.safe_load(path.read_text())["jobs"].values():
            assert inner["permissions"].items() <= job["permissions"].items(), "GitHub refuses it"
        jobs = self.run(name, inputs=inputs, secrets=secrets)
        results = {job.result for job in jobs.values()}
        result = "failure" if "failure" in results else "success"
        return {key: Job(result)} | {f"{key}/{name}": job for name, job in jobs.items()}

    def _run_job(self, job: dict[str, Any], contexts: dict[str, Any]) -> Job:
        assert job["timeout-minutes"] <= 120
        folder = self.machine.folder / f"job-{next(self.machine.numbers)}"
        folder.mkdir()
        done, steps = Job("success"), {}
        functions = {
            "success": lambda: done.result == "success",
            "failure": lambda: done.result == "failure",
            "cancelled": lambda: False,
        }
        with ExitStack() as stack:
            services = {}
            for name, service in job.get("services", {}).items():
                port = stack.enter_context(
                    self.machine.service(service["image"], service.get("env", {}))
                )
                (number,) = service["ports"]
                services[name] = {"ports": {str(number): port}}
            scope = {**contexts, "steps": steps, "job": {"services": services}}
            expressions = Expressions(scope, functions)
            env = {k: expressions.fill(v) for k, v in job.get("env", {}).items()}
            if job["permissions"].get("id-token") == "write":
                env["ACTIONS_ID_TOKEN_REQUEST_URL"] = self.machine.identity_url
                env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "of-the-job"
            for step in job["steps"]:
                if not expressions.holds(step.get("if", "'yes'")):
                    continue
                self._run_step(step, folder, env, expressions, done, steps)
        for name, text in job.get("outputs", {}).items():
            done.outputs[name] = expressions.fill(text) if done.result == "success" else ""
        return done

    def _run_step(
        self,
        step: dict[str, Any],
        folder: Path,
        env: dict[str, str],
        expressions: Expressions,
        done: Job,
        steps: dict[str, Any],
    ) -> None:
        given = {k: expressions.fill(v) for k, v in step.get("with", {}).items()}
        if "uses" in step:
            name, _, commit = step["uses"].partition("@")
            assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{name} is not pinned"
            self.machine.used.append((name, given))
            try:
                env |= USES[name](self, folder, given) or {}
            except StepError as error:
                done.result, done.output = "failure", f"{done.output}{name}: {error}\n"
            return
        output = folder.with_suffix(".output")
        output.touch()
        own = {k: expressions.fill(v) for k, v in step.get("env", {}).items()}
        mine = {
            "GITHUB_ACTOR": self.github["actor"],
            "GITHUB_OUTPUT": str(output),
            "GITHUB_REF_NAME": self.github["ref"].split("/", 2)[-1],
            "GITHUB_REPOSITORY": self.github["repository"],
            "GITHUB_SHA": self.sha,
        }
        assert "${{" not in step["run"], "an expression in a script allows code injection"
        place = folder / step.get("working-directory", "")
        result = run(step["run"], place, self.machine.variables(mine, env, own))
        done.output += f"$ {step['run']}\n{result.stdout}"
        if result.returncode:
            done.result = "failure"
        if "id" in step:
            lines = [line.partition("=") for line in output.read_text().splitlines()]
            steps[step["id"]] = {"outputs": {name: value for name, _, value in lines}}
        output.unlink()


def rows_of(matrix: dict[str, Any]) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Return the rows of a matrix, each without and with the values of `include`."""
    axes = {name: values for name, values in matrix.items() if name != "include"}
    rows = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    found = []
    for row in rows:
        fitting = [
            more
            for more in matrix.get("include", [])
            if all(row[name] == more[name] for name in more.keys() & axes.keys())
        ]
        found.append((row, row | {k: v for more in fitting for k, v in more.items()}))
    return found


class StepError(Exception):
    """The error of an action."""


def check_out(github: GitHub, folder: Path, given: dict[str, str]) -> None:
    assert given["persist-credentials"] == "false"
    commit, depth = given.get("ref") or github.sha, int(given.get("fetch-depth", "1"))
    github.machine.check_out(commit, folder / given.get("path", ""), depth)


def set_up_uv(github: GitHub, _folder: Path, given: dict[str, str]) -> dict[str, str]:
    assert given["version"] == "0.13.x"
    return {"UV_PYTHON": github.machine.python} if "python-version" in given else {}


def upload(github: GitHub, folder: Path, given: dict[str, str]) -> None:
    for name in given["path"].split():
        if not (folder / name).exists():
            raise StepError(f"no {name}")
        target = github.machine.folder / "artifacts" / given["name"]
        target.mkdir(exist_ok=True)
        shutil.copy(folder / name, target)


def download(github: GitHub, folder: Path, given: dict[str, str]) -> None:
    for path in (github.machine.folder / "artifacts" / given["name"]).iterdir():
        shutil.copy(path, folder)


def scan(github: GitHub, folder: Path, given: dict[str, str]) -> None:
    """Replace Trivy: it needs a database from the network."""
    if "output" in given:
        (folder / given["output"]).write_text("{}")
    if github.machine.fails == "trivy" and given.get("exit-code") == "1":
        raise StepError("a severe vulnerability")


USES: dict[str, Callable[[GitHub, Path, dict[str, str]], dict[str, str] | None]] = {
    "actions/attest": lambda *_: None,
    "actions/checkout": check_out,
    "actions/download-artifact": download,
    "actions/upload-artifact": upload,
    "aquasecurity/trivy-action": scan,
    "astral-sh/setup-uv": set_up_uv,
}


# --- GitLab ---------------------------------------------------------------------------------------


class GitLab:
    """Runs the jobs of GitLab for a branch."""

    def __init__(
        self, machine: Machine, *, branch: str = "main", variables: dict[str, str] | None = None
    ) -> None:
        self.machine = machine
        self.config = yaml.safe_load((machine.repository / ".gitlab-ci.yml").read_text())
        self.sha = machine.git("rev-parse", "HEAD")
        self.predefined = {
            "CI_COMMIT_BRANCH": branch,
            "CI_COMMIT_SHA": self.sha,
            "CI_DEFAULT_BRANCH": "main",
            "CI_JOB_URL": "https://gitlab.com/acme/example-service/-/jobs/42",
            "CI_PIPELINE_SOURCE": "push",
            "CI_REGISTRY": "registry.example.com",
            "CI_REGISTRY_IMAGE": "registry.example.com/acme/example-service",
            "CI_REGISTRY_PASSWORD": "of-the-job",
            "CI_REGISTRY_USER": "job",
            **(variables or {}),
        }

    def run(self, *names: str, by_hand: dict[str, str] | None = None) -> dict[str, Job]:
        """Run jobs in this order. Jobs in `needs` pass on their variables.

        Args:
            names: of jobs.
            by_hand: variables for manual jobs. Without them, manual jobs are skipped.
        """
        done: dict[str, Job] = {}
        for name in names:
            job = self._with_parents(name)
            needed = [done[n] for n in job.get("needs", []) if n in done]
            when = self._when(job)
            is_manual = when == "manual"
            if (
                when == "never"
                or (is_manual and by_hand is None)
                or any(n.result != "success" for n in needed)
            ):
                done[name] = Job("skipped")
            else:
                passed = {k: v for n in needed for k, v in n.outputs.items()}
                done[name] = self._run_job(job, passed, (by_hand or {}) if is_manual else {})
        return done

    def _with_parents(self, name: str) -> dict[str, Any]:
        job = self.config[name]
        if "extends" not in job:
            return {**self.config["default"], **job}
        parent = self._with_parents(job["extends"])
        merged = {**parent, **job}
        merged["variables"] = {**parent.get("variables", {}), **job.get("variables", {})}
        return merged

    def _when(self, job: dict[str, Any]) -> str:
        for rule in job.get("rules", [{}]):
            if all(self._holds(part) for part in rule.get("if", "").split("&&") if part):
                return str(rule.get("when", "on_success"))
        return "never"

    def _holds(self, comparison: str) -> bool:
        def value(text: str) -> str:
            text = text.strip()
            assert re.fullmatch(r'\$\w+|"[^"]*"', text), text
            return text[1:-1] if text.startswith('"') else self.predefined.get(text[1:], "")

        left, operator, right = comparison.partition("==")
        return value(left) == value(right) if operator else bool(value(left))

    def _run_job(self, job: dict[str, Any], passed: dict[str, str], by_hand: dict[str, str]) -> Job:
        folder = self.machine.folder / f"job-{next(self.machine.numbers)}"
        own = {**self.config["variables"], **job.get("variables", {})}
        self.machine.check_out(self.sha, folder, int(own.get("GIT_DEPTH", "20")))
        for artifact in (self.machine.folder / "artifacts").iterdir():
            shutil.copy(artifact, folder)
        with ExitStack() as stack:
            for service in job.get("services", []):
                if isinstance(service, str):
                    continue  # Docker itself
                port = stack.enter_context(
                    self.machine.service(service["name"], service.get("variables", {}))
                )
                place = re.compile(rf"(?<=[@/]){service['alias']}:\d+")
                own = {k: place.sub(f"127.0.0.1:{port}", v) for k, v in own.items()}
            mine = {**self.predefined, **passed, **by_hand}
            own = {k: re.sub(r"\$(\w+)", lambda m: mine.get(m[1], ""), v) for k, v in own.items()}
            env = self.machine.variables(mine, {"UV_PYTHON": self.machine.python}, own)
            for name, given in job.get("id_tokens", {}).items():
                assert re.sub(r"\$(\w+)", lambda m: mine.get(m[1], ""), given["aud"])
                env[name] = self.machine.identity_token
            script = "\n".join(job["script"])
            result = run(script, folder, env)
            done = Job("failure" if result.returncode else "success", result.stdout)
            status = {"CI_JOB_STATUS": "failed" if result.returncode else "success"}
            after = run("\n".join(job.get("after_script", [":"])), folder, env | status)
            done.output += after.stdout
        artifacts = job.get("artifacts", {})
        kept = [*artifacts.get("paths", []), *artifacts.get("reports", {}).values()]
        for name in kept if done.result == "success" or artifacts.get("when") == "always" else []:
            if (folder / name).exists():
                shutil.copy(folder / name, self.machine.folder / "artifacts")
            else:
                done.output += f"WARNING: {name}: no matching files\n"  # and no failure
        if done.result == "success" and "dotenv" in artifacts.get("reports", {}):
            lines = (folder / artifacts["reports"]["dotenv"]).read_text().splitlines()
            done.outputs = dict(line.split("=", 1) for line in lines)
        return done
