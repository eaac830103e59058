"""Prepare a release, and print its notes.

`python3 maintenance/release.py prepare 1.2.0` writes the version into cookiecutter.json and the
heading into CHANGELOG.md. `notes v1.2.0` prints the section of the changelog, if the tag, the
version and the newest heading agree.
"""

import datetime
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
VERSION = re.compile(r'(?<="_version": ")[^"]*(?=")')  # in cookiecutter.json
NUMBERS = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
UNRELEASED = "## Unreleased\n"
HEADING = re.compile(r"^## (?P<version>\d+\.\d+\.\d+) - (?P<date>\d{4}-\d{2}-\d{2})\n", re.M)


class ReleaseError(Exception):
    """The release is not possible. The message is one sentence."""


def prepare(folder: Path, version: str, today: datetime.date) -> None:
    """Write the version into cookiecutter.json, and its heading into CHANGELOG.md.

    Raises:
        ReleaseError: the version is malformed or not newer than the last one, or the changelog has
            no unreleased entries.
    """
    if not NUMBERS.fullmatch(version):
        raise ReleaseError(f"{version!r} does not have the form 1.2.0")
    changelog = _read(folder / "CHANGELOG.md")
    before, heading, after = changelog.partition(UNRELEASED)
    if not heading:
        raise ReleaseError("CHANGELOG.md has no heading Unreleased")
    last = HEADING.search(after)
    if not (after[: last.start()] if last else after).strip():
        raise ReleaseError("CHANGELOG.md has no entries under Unreleased")
    if last and _order(version) <= _order(last["version"]):
        raise ReleaseError(f"{version} is not newer than {last['version']}")
    questions = _read(folder / "cookiecutter.json")
    _write(folder / "cookiecutter.json", VERSION.sub(version, questions))
    _write(folder / "CHANGELOG.md", f"{before}{heading}\n## {version} - {today}\n{after}")


def notes(folder: Path, tag: str) -> str:
    """Return the section of the changelog for the release of a tag.

    Raises:
        ReleaseError: the tag, the version and the newest heading do not agree.
    """
    headings = list(HEADING.finditer(changelog := _read(folder / "CHANGELOG.md")))
    found = VERSION.search(_read(folder / "cookiecutter.json"))
    named = {
        "the tag": tag.removeprefix("v"),
        "_version in cookiecutter.json": found[0] if found else "missing",
        "the newest heading of CHANGELOG.md": headings[0]["version"] if headings else "missing",
    }
    if len(set(named.values())) > 1:
        raise ReleaseError(", ".join(f"{place} is {value}" for place, value in named.items()))
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    return changelog[headings[0].end() : end].strip() + "\n"


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def main(command: str, argument: str) -> None:
    if command == "prepare":
        prepare(HERE, argument, datetime.datetime.now(datetime.UTC).date())
    else:
        sys.stdout.write(notes(HERE, argument))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ReleaseError as error:
        sys.exit(f"not released: {error}")
