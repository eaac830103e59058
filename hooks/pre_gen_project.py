"""Remove the project of an interrupted bake.

A file marks the project as unfinished until `post_gen_project` has ended. A background process
removes the project if cookiecutter has ended and the file still exists. Only the standard library
is used.
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
        if gone_for == 20:  # one second: a running hook needs less
            shutil.rmtree(project)
"""


def main() -> None:
    is_empty = not any(Path().iterdir())
    Path(UNFINISHED).touch()  # older files belong to the user
    if is_empty and os.name == "posix":  # os.kill(pid, 0) ends the process on Windows
        arguments = [str(os.getppid()), str(Path().resolve()), UNFINISHED]
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHER, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


if __name__ == "__main__":
    main()
