"""Deploys a commit's source to Railway: every service that runs its image.

    python scripts/deploy_to_railway.py COMMIT FOLDER

It needs the program `railway`, and RAILWAY_TOKEN, a project token, in the environment. The
migrations are not run from here: each replica of `app` sees to them when it starts.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SERVICES = ["app"]  # first: it migrates what the others need
SERVICES += ["worker", "scheduler"]  # option: worker


def deploy(commit: str, folder: Path) -> None:
    """Upload the folder for each service, and wait until it is built and healthy.

    Raises:
        subprocess.CalledProcessError: a build or a health check failed; the old version runs on.
    """
    for service in SERVICES:
        # What is uploaded has no history to read the commit from. Without --skip-deploys the
        # variable alone would deploy the old source again.
        variable = ["variable", "set", f"COMMIT_SHA={commit}", "--skip-deploys"]
        subprocess.run(["railway", *variable, "--service", service], cwd=folder, check=True)
        subprocess.run(["railway", "up", "--ci", "--service", service], cwd=folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", help="that /health is to name")
    parser.add_argument("folder", type=Path, help="with its source")
    arguments = parser.parse_args()
    try:
        deploy(arguments.commit, arguments.folder)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"not deployed: {error}")


if __name__ == "__main__":
    main()
