"""Report in an issue that tests fail with the newest dependencies.

The first failure opens the issue. Later failures add a comment, until a maintainer closes it. Needs
GitHub's command line, `gh`.
"""

import json
import subprocess
import sys

TITLE = "Tests fail with the newest dependencies"


def gh(*arguments: str) -> str:
    """Run gh, and return its output.

    Raises:
        subprocess.CalledProcessError: gh failed. It has printed the reason.
    """
    result = subprocess.run(["gh", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout


def report(repository: str, run_url: str) -> None:
    """Open an issue about a failed run, or comment on the open one.

    Args:
        repository: owner/name.
        run_url: of the failed workflow run.
    """
    listing = gh(
        "issue", "list", "--repo", repository, "--state", "open", "--limit", "1000",
        "--json", "number,title",
    )  # fmt: skip
    known = [str(issue["number"]) for issue in json.loads(listing) if issue["title"] == TITLE]
    body = f"Logs, with the failed tests and the updated versions: {run_url}"
    if known:
        gh("issue", "comment", min(known, key=int), "--repo", repository, "--body", body)
    else:
        gh("issue", "create", "--repo", repository, "--title", TITLE, "--body", body)


if __name__ == "__main__":
    report(*sys.argv[1:])
