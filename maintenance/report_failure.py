"""Says in one issue that the newest releases fail: opens it, or adds to the one that is open.

Closing it is left to people. Uses GitHub's own command line.
"""

import json
import subprocess
import sys

TITLE = "The newest releases fail the tests"


def gh(*arguments: str) -> str:
    """Run it; what it printed.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    result = subprocess.run(["gh", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout


def report(repository: str, run_url: str) -> None:
    """Tell people that a run has failed.

    Args:
        repository: as in owner/name.
        run_url: where the failure can be read.
    """
    listing = gh(
        "issue", "list", "--repo", repository, "--state", "open", "--limit", "1000",
        "--json", "number,title",
    )  # fmt: skip
    known = [str(issue["number"]) for issue in json.loads(listing) if issue["title"] == TITLE]
    words = f"{run_url} says which, and what has moved."
    if known:
        gh("issue", "comment", min(known, key=int), "--repo", repository, "--body", words)
    else:
        gh("issue", "create", "--repo", repository, "--title", TITLE, "--body", words)


if __name__ == "__main__":
    report(*sys.argv[1:])
