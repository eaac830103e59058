"""The page and the plot of `make bench`. The benchmark itself takes minutes and needs wrk."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import results_page
from conftest import QUESTIONS, ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import jobs
import report
import run
from load import Sample
from measurements import Measurements, Outage

SAMPLE = Sample(answers=100, rate=50.0, p50_ms=1, p99_ms=3, longest_ms=9, cpu_us=70, errors=0)


def equal_measurements() -> Measurements:
    """Return measurements that are all equal, except for the health checks of the default bake."""
    measured = Measurements(python="Python 3.14.0", wrk="wrk 4.1.0", before="v1.0.0")
    for ratio in [*report.RATIOS, *report.ORM_SESSIONS, *report.CONTROL]:
        for name in (ratio.name, ratio.baseline):
            measured.samples[ratio.work, name] = [SAMPLE]
    for work in ("health", "read bookmark"):
        for name in run.KINDS:
            measured.samples[work, name] = [SAMPLE]
    measured.samples["health", report.before("default")] = [Sample(100, 40.0, 1, 3, 9, 80, 0)]
    measured.samples["health", "default"] = [Sample(100, 25.0, 1, 3, 9, 140, 0)]
    for name in run.STARTED:
        measured.ready_seconds[name], measured.resident[name] = [0.4, 0.5, 0.9], 80.0
    measured.imports = [("all", 500.0), ("sqlalchemy", 160.0)]
    measured.suite = ["300 passed in 40.00s", "5.00s call tests/test_a.py::test_b"]
    measured.growth["connections"] = [(1, SAMPLE)]
    measured.outage = Outage(400.0, 1500.0, 2000, 0, 20.0, 2500.0, 0)
    measured.bake_seconds |= {"one file": [0.2], "default, with lock": [0.9, 1.0, 1.1]}
    return measured


def test_page_has_every_ratio_option_and_section() -> None:
    page = report.page(equal_measurements(), rounds=3, seconds=3)
    assert "| health, default bake | 0.80 | 0.50 | 0.80 | 25 | 50 | 140 µs |" in page
    assert "Before: the services of v1.0.0, in the same run." in page
    assert "| read one, session |  | 1.00 | 0.33 |" in page
    for option in report.OPTIONS:
        assert f"| {option} | 1.00 | 1.00 |" in page
    assert "| default | 0.50 s | 80 MiB |" in page
    assert re.search(r"^Python 3\.14\.0, asyncpg .*, wrk 4\.1\.0\.$", page, re.M)
    assert "2000 refusals and 0 other responses" in page
    assert "| default, with lock | 1.00 | 0.80 |" in page
    assert page.count("\n## ") == 6


def test_section_of_jobs_has_the_medians() -> None:
    rates = {("postgres", 4): [(100.0, 400.0), (150.0, 300.0), (900.0, 200.0)]}
    section = jobs.jobs_section(rates, "Python 3.14.0")
    assert "| postgres | 4 | 150 | 300 | 0.50 |" in section
    assert "Python 3.14.0." in section


def test_plot_has_a_bar_for_every_ratio_and_a_mark_for_every_target() -> None:
    plot = ElementTree.fromstring(report.plot(equal_measurements()))  # noqa: S314 - from report.plot(), not from outside
    bars = [element for element in plot if element.get("height") == str(report.BAR)]
    ratios = [*report.RATIOS, *report.ORM_SESSIONS]
    assert len(bars) == len(ratios)
    marks = [element for element in plot if element.tag.endswith("line")]
    assert len(marks) == sum(ratio.target is not None for ratio in ratios)


def test_every_runtime_option_is_measured() -> None:
    measured_options = {answer.partition("=")[0] for kind in run.KINDS.values() for answer in kind}
    options = {name for name, value in QUESTIONS.items() if isinstance(value, bool)}
    assert options | {"auth", "worker"} == measured_options


PAGE = "# Benchmark\n\nBy bench.\n\n## Soak test\n\nOld.\n"


def test_section_is_appended_or_replaced_and_the_rest_is_kept() -> None:
    once = results_page.with_section(PAGE, "Failure tests and containers", "- 5 sent\n")
    assert once == PAGE + "\n## Failure tests and containers\n\n- 5 sent\n"
    twice = results_page.with_section(once, "Failure tests and containers", "- 6 sent")
    assert twice == once.replace("5", "6")
    assert results_page.with_section(once, "Soak test", "New.") == once.replace("Old", "New")


def test_page_of_the_benchmark_keeps_the_sections_of_other_commands() -> None:
    text = report.page(equal_measurements(), rounds=3, seconds=3)
    page = results_page.with_kept_sections(text, PAGE)
    assert page == text + "\n## Soak test\n\nOld.\n"
    assert results_page.with_kept_sections(text, "# Benchmark\n") == text


FOLDERS = (ROOT, ROOT / "benchmarks", ROOT / "tests")
RECORDS = """
import engine

def test_records() -> None:
    engine.record("8 replicas at once: 1 migrated")
    assert {expected}
"""


@pytest.mark.parametrize("passes", [True, False])
def test_measurements_are_written_to_the_page_if_every_test_passes(
    tmp_path: Path, *, passes: bool
) -> None:
    page, test = tmp_path / "results.md", tmp_path / "test_records.py"
    page.write_text(PAGE, encoding="utf-8")
    test.write_text(RECORDS.format(expected=passes), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "--measurements", page, test],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, FOLDERS))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == (0 if passes else 1), result.stdout + result.stderr
    assert "8 replicas at once: 1 migrated" in result.stdout
    written = results_page.section_of(page.read_text(encoding="utf-8"), results_page.CONTAINERS)
    assert written.endswith("\n- 8 replicas at once: 1 migrated\n") == passes
    assert bool(written) == passes
