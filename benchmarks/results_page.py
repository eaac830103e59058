"""The sections of results.md: each command writes its own, and keeps those of the others."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

JOBS, CONTAINERS, SOAK = "Jobs", "Failure tests and containers", "Soak test"
OF_OTHER_COMMANDS = (JOBS, CONTAINERS, SOAK)  # all other sections are those of run.py


def section_of(page: str, title: str) -> str:
    """Return a section with its heading, or an empty text."""
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def with_section(page: str, title: str, text: str) -> str:
    """Return the page with this section replaced, or appended if the page has none."""
    new, old = f"## {title}\n\n{text.strip()}\n", section_of(page, title)
    if not old:
        return f"{page.rstrip()}\n\n{new}"
    is_last = page.endswith(old)
    return page.replace(old, new if is_last else f"{new}\n")


def with_kept_sections(new: str, page: str) -> str:
    """Return a new page of run.py, with the sections that other commands wrote."""
    for title in OF_OTHER_COMMANDS:
        if old := section_of(page, title):
            new = with_section(new, title, old.partition("\n")[2])
    return new


def write_section(file: Path, title: str, text: str) -> None:
    file.write_text(with_section(file.read_text("utf-8"), title, text), "utf-8")


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def containers_section(measurements: list[str]) -> str:
    """Return the section of a run in which every test passed."""
    lines = [
        f"Written by `make test-containers` on {today()}, after every test had passed.",
        f"{machine()}.",
        "",
        *(f"- {line}" for line in measurements),
    ]
    return "\n".join(lines)
