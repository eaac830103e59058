"""`make soak`: the comparison, the section, and a short run."""

import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import QUESTIONS, ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import soak

START = soak.Held(
    resident_mib=100.0,
    open_files=30,
    asyncio_tasks=3,
    worker_resident_mib=90.0,
    worker_open_files=12,
    postgres_connections=9,
    redis_connections=11,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"resident_mib": 101.9, "open_files": 31}, []),
        ({"resident_mib": 60.0, "asyncio_tasks": 1}, []),
        ({"resident_mib": 102.1}, ["resident MiB grew from 100 to 102.1"]),
        ({"asyncio_tasks": 5}, ["asyncio tasks grew from 3 to 5"]),
        ({"worker_open_files": 14}, ["worker open files grew from 12 to 14"]),
    ],
)
def test_growth_beyond_the_limit_is_reported(values: dict[str, float], expected: list[str]) -> None:
    assert soak.excesses(START, replace(START, **values)) == expected


def test_section_has_a_row_for_every_count() -> None:
    end = replace(START, resident_mib=101.0)
    section = soak.section(START, end, minutes=10, answers=36_000, python="Python 3.14.0")
    assert "| resident MiB | 100.0 | 101.0 | 1.0% |" in section
    assert section.count("\n| ") == len(vars(START)) + 1


def test_long_run_has_every_option() -> None:
    options = {name for name, value in QUESTIONS.items() if isinstance(value, bool)}
    options |= {"auth", "worker"}
    assert {answer.partition("=")[0] for answer in soak.EVERY_OPTION} == options


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.thorough
def test_service_with_every_option_has_no_growth_under_load() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py")]
    result = subprocess.run(
        [*command, "--minutes", "1", "--warm-up", "1"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
