"""Processes of the programs `app` and `alembic`, forked from a process that has their libraries.

The imports of libraries take most of the start of a process. Here they are done once for each
worker of pytest-xdist, in the fork server of `multiprocessing`. The same holds for the modules of
the service, which read no environment variable when they are imported. A process with a PYTHONPATH
imports the service from there.

The processes import this module, so it imports nothing but the standard library.
"""

import gc
import multiprocessing
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from subprocess import TimeoutExpired

PROGRAMS = {"app": ("app.cli", "run"), "alembic": ("alembic.config", "main")}
LIBRARIES = ["alembic.command", "app.cli", "app.db.migrate", "app.main", "uvicorn.main"]
LIBRARIES += ["app.worker", "app.jobs.background"]  # option: worker
LIBRARIES += ["app.jobs.pgqueuer.worker"]  # option: postgres
LIBRARIES += ["app.jobs.celery.worker"]  # option: celery
# Celery imports these when a worker starts.  # option: celery
LIBRARIES += ["celery.apps.worker", "celery.concurrency.prefork"]  # option: celery
LIBRARIES += ["celery.app.control", "kombu.transport.redis"]  # option: celery
CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


class ForkedProcess:
    """A process with the interface of `subprocess.Popen`.

    Args:
        command: a program of PROGRAMS and its arguments.
        env: the environment variables.
        folder: the working folder.
        out: the file of standard output.
        err: the file of standard error.
    """

    def __init__(
        self, command: list[str], env: Mapping[str, str], folder: Path, out: Path, err: Path
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        arguments = (command, dict(env), str(folder), str(out), str(err))
        self._process = context.Process(target=_run, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(command: list[str], env: dict[str, str], folder: str, out: str, err: str) -> None:
    # A collection writes to the head of every object, so the kernel would copy all their pages.
    # The objects of the fork server live as long as the process: collections skip them.
    gc.freeze()
    os.setsid()
    for number, file in ((0, os.devnull), (1, out), (2, err)):
        opened = os.open(file, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0)  # noqa: SIM115 - uvicorn passes it to its processes
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    if folders := [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]:
        for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
            del sys.modules[name]
        sys.path[:0] = folders
    sys.argv = command
    module, function = PROGRAMS[command[0]]
    sys.exit(getattr(import_module(module), function)())
