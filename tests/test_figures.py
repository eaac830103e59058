"""The figures of the pages are those of benchmarks/results.md, and the guarantees have tests."""

import re

import pytest
from conftest import ROOT, TEMPLATE
from test_bake import COMBINATIONS
from test_baked_service import covering_rows
from test_docs import CODE
from test_root_docs import PAGES, table_below

RESULTS = (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8")
STATUSES = {"200", "503"}  # of HTTP, so no measurements
NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


def ratio(name: str) -> str:
    return rf"^\| {re.escape(name)} \| [\d. ]*\| ([\d.]+) \|"


def cpu(name: str, *, of_baseline: bool = False) -> str:
    return rf"^\| {re.escape(name)} \|(?:[^|]*\|){{{6 if of_baseline else 5}}} (\d+) µs"


COST = "docs/decisions/0010-cost-of-a-request.md"
SESSIONS = "docs/decisions/0004-sessions-and-core-statements-on-hot-paths.md"
# Where results.md has the figures of a row, in the order of the row. A row without a figure needs
# a measurement as well.
FIGURES = {
    ("README.md", "health check through all middleware"): [ratio("health, default bake")],
    ("README.md", "read one row from the cache"): [ratio("read one, from the cache")],
    ("README.md", "read one row, by a Core statement and by a session"): [
        ratio("read one, connection"),
        ratio("read one, session"),
        ratio("read one, service written by hand"),
    ],
    ("README.md", "read ten rows, likewise"): [
        ratio("read ten, connection"),
        ratio("read ten, session"),
        ratio("read ten, service written by hand"),
    ],
    ("README.md", "create and commit one row, likewise"): [
        ratio("create one, statement in a session"),
        ratio("create one, object in a session"),
        ratio("create one, service written by hand"),
    ],
    ("README.md", "p99 latency of reading one row by a Core statement, at 32 connections"): [
        r"^Throughput at (\d+) connections",
        r"^Tail latency of read one, p99 / p50: connection ([\d.]+),",
        r"^Tail latency of read one, .* service written by hand ([\d.]+) ",
    ],
    ("README.md", "`app serve` until ready; memory under load"): [
        r"^\| default \| ([\d.]+) s \|",
        r"^\| default \| [\d.]+ s \| (\d+) MiB",
    ],
    ("README.md", "bake, without cookiecutter's own time; with a lock from uv's cache"): [
        r"^\| default, without lock \| [\d.]+ \| ([\d.]+) \|",
        r"^\| default, with lock \| [\d.]+ \| ([\d.]+) \|",
    ],
    ("README.md", "SIGTERM, rolling restart, and deployment with rollback, each under load"): [
        r"^- SIGTERM under load: (\d+) sent, 0 failed",
        r"^- rolling restart of 2 replicas: (\d+) sent, 0 failed",
        r"^- deployment with a migration, and rollback: (\d+) sent, 0 failed",
    ],
    ("README.md", "PostgreSQL killed under load"): [
        r"^- database killed for .*last failure ([\d.]+) s after it accepted connections"
    ],
    ("README.md", "PostgreSQL frozen for 10 s under load"): [
        r"^- database frozen for (\d+) s: ",
        r"^- database frozen for .*\bslowest ([\d.]+) s",
    ],
    ("README.md", "Redis killed or frozen under load"): [
        r"^- cache killed: .*\b0 failed",
        r"^- cache frozen: .*\b0 failed",
    ],
    ("README.md", "connection pool exhausted, 256 clients waiting"): [
        r"^(\d+) clients while the table is locked",
        r"refusals and 0 other responses",
    ],
    ("README.md", "10 minutes of mixed load with every option"): [
        r"responses in (\d+) minutes",
        r"grows by more than (\d+)%",
    ],
    (COST, "minimal FastAPI: one route, no middleware"): [
        cpu("health, default bake", of_baseline=True),
        r"^Ratios of health are to minimal FastAPI",
    ],
    (COST, "health check of the default bake"): [
        cpu("health, default bake"),
        ratio("health, default bake"),
    ],
    (COST, "read of a row, FastAPI with the driver alone"): [
        cpu("read one, connection", of_baseline=True),
        r"all others to FastAPI with asyncpg alone",
    ],
    (COST, "read of a row, connection"): [
        cpu("read one, connection"),
        ratio("read one, connection"),
    ],
    (COST, "read of a row, session"): [cpu("read one, session"), ratio("read one, session")],
    (COST, "read of a row from the cache"): [
        cpu("read one, from the cache"),
        ratio("read one, from the cache"),
    ],
    (SESSIONS, "ORM session"): [ratio("read one, session"), cpu("read one, session")],
    (SESSIONS, "Core statement, built once with `bindparam`"): [
        ratio("read one, connection"),
        cpu("read one, connection"),
    ],
}


def rows_of(page: str, heading: str) -> dict[tuple[str, str], str]:
    return {(page, first): " ".join([first, *rest]) for first, *rest in table_below(heading, page)}


def test_figures_of_the_pages_are_those_of_the_results() -> None:
    rows = rows_of("README.md", "Measurements")
    rows |= rows_of(COST, "Context") | rows_of(SESSIONS, "Context")
    assert set(rows) == set(FIGURES)
    for key, row in rows.items():
        measured = []
        for pattern in FIGURES[key]:
            found = re.search(pattern, RESULTS, re.MULTILINE)
            assert found, f"{key}: results.md has no {pattern}"
            measured += found.groups()
        numbers = [text for text in NUMBER.findall(row) if text not in STATUSES]
        quoted = [text.replace(",", "") for text in numbers]
        assert len(quoted) == len(measured), f"{key}: {quoted} and {measured}"
        for text, value in zip(quoted, measured, strict=True):
            digits = len(text.partition(".")[2])
            assert text == f"{float(value):.{digits}f}", f"{key}: {text}, measured {value}"


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM under load: ",
        "rolling restart of 2 replicas: ",
        "deployment with a migration, and rollback: ",
        "database killed for ",
        "database frozen for 10 s: ",
        "cache {how}: ",
    ],
)
def test_failure_tests_record_the_figures_under_these_names(name: str) -> None:
    tests = (ROOT / "tests" / "test_failures.py").read_text(encoding="utf-8")
    assert f'record(f"{name}' in tests


def test_guarantees_name_existing_tests() -> None:
    rows = table_below("Guarantees", "README.md")
    folders = (ROOT / "tests", ROOT / TEMPLATE / "tests")
    tests = "".join(p.read_text("utf-8") for folder in folders for p in folder.rglob("test_*.py"))
    for guarantee, test in rows:
        (name,) = CODE.findall(test)
        assert f"def {name}(" in tests, guarantee
    (least,) = re.findall(r"more than ([\d,]+) combinations", PAGES["README.md"])
    assert len(COMBINATIONS) > int(least.replace(",", ""))
    (bakes,) = re.findall(r"^\| (\d+) bakes, in which every pair", PAGES["README.md"], re.M)
    assert len(covering_rows()) == int(bakes)
