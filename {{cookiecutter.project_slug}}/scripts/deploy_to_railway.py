"""Deploy the source of a commit to every Railway service that runs its image.

    python scripts/deploy_to_railway.py COMMIT FOLDER

It requires the Railway CLI, and a project token in RAILWAY_TOKEN. It does not run migrations:
each replica of `app` does when it starts.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SERVICES = ["app"]  # first: it migrates the database, which the others use
SERVICES += ["worker"]  # option: worker


def deploy(commit: str, folder: Path) -> None:
    """Upload the folder for each service, and wait until the service is built and healthy.

    Raises:
        subprocess.CalledProcessError: a build or a health check failed. The old version keeps
            running.
    """
    for service in SERVICES:
        # The upload has no git history, so a variable carries the commit. Without --skip-deploys,
        # setting the variable would deploy the old source again.
        variable = ["variable", "set", f"COMMIT_SHA={commit}", "--skip-deploys"]
        subprocess.run(["railway", *variable, "--service", service], cwd=folder, check=True)
        subprocess.run(["railway", "up", "--ci", "--service", service], cwd=folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", help="SHA that /health will show")
    parser.add_argument("folder", type=Path, help="folder with its source")
    arguments = parser.parse_args()
    try:
        deploy(arguments.commit, arguments.folder)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"not deployed: {error}")


if __name__ == "__main__":
    main()
