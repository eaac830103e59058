"""Update both constraints.txt to the newest versions that the requirements allow.

`make constraints` runs it. Packages keep the markers of their options; a test reports a new package
without a marker. With `--lift-bounds` the upper bounds of the requirements are removed first, to
test newer versions than they allow.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
TEMPLATE = HERE / "{{cookiecutter.project_slug}}"
LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+)(?P<marker>  # option: .*)?")
UPPER_BOUND = re.compile(r'(?<=\d),<[\d.]+(?=[;"])')


def resolve(project: Path) -> dict[str, str]:
    """Return the version of every package that the project can need, on any system, by name."""
    (project / "uv.lock").unlink(missing_ok=True)
    subprocess.run(["uv", "lock", "--quiet"], cwd=project, check=True)
    export = ["uv", "export", "--quiet", "--all-groups", "--no-hashes", "--no-annotate"]
    export += ["--no-header", "--no-emit-project"]
    lines = subprocess.run(export, cwd=project, check=True, capture_output=True, text=True).stdout
    pins: dict[str, str] = {}
    for match in filter(None, map(LINE.match, lines.splitlines())):
        pins.setdefault(match["name"], match["version"])  # the first of two is for older Pythons
    return pins


def refresh(project: Path) -> None:
    file = project / "constraints.txt"
    before = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    markers = {m["name"]: m["marker"] or "" for m in map(LINE.fullmatch, before) if m}
    head = [line for line in before if line.startswith("#")]
    lines = [f"{n}=={v}{markers.get(n, '')}" for n, v in sorted(resolve(project).items())]
    file.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


def lift_bounds(project: Path) -> None:
    """Remove the upper bounds of the requirements in pyproject.toml."""
    file = project / "pyproject.toml"
    text = UPPER_BOUND.sub("", file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for folder in (HERE, TEMPLATE):
        if "--lift-bounds" in sys.argv[1:]:
            lift_bounds(folder)
        refresh(folder)
