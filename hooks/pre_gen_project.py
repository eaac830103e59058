"""Makes sure that an interrupted bake leaves no half project behind.

Between the moment cookiecutter begins to copy and the moment `post_gen_project` is done, a file
says that the project is unfinished. A watcher in the background removes the project if
cookiecutter is gone and the file is still there. Standard library only.
"""

import os
import subprocess
import sys
from pathlib import Path

UNFINISHED = ".unfinished"
WATCHER = """
import os, shutil, sys, time
baker, project, unfinished = int(sys.argv[1]), sys.argv[2], sys.argv[3]
deadline, gone_for = time.monotonic() + 600, 0
while os.path.exists(os.path.join(project, unfinished)) and time.monotonic() < deadline:
    time.sleep(0.05)
    try:
        os.kill(baker, 0)
    except ProcessLookupError:
        gone_for += 1
        if gone_for == 20:  # a second: a hook that is at work finishes in less
            shutil.rmtree(project)
"""


def main() -> None:
    is_empty = not any(Path().iterdir())
    Path(UNFINISHED).touch()  # what is older than this is somebody's
    if is_empty and os.name == "posix":  # elsewhere there is no asking whether a process is alive
        about = [str(os.getppid()), str(Path().resolve()), UNFINISHED]
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHER, *about],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


if __name__ == "__main__":
    main()
