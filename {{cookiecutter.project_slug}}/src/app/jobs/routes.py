"""The status of jobs."""

import uuid
from functools import partial

from fastapi import APIRouter
from sqlalchemy import bindparam, select

from app.auth.dependencies import CurrentIdentity  # option: auth
from app.db.session import Database
from app.errors import NotFound
from app.jobs.heartbeats import read_workers
from app.jobs.models import JOBS
from app.jobs.schemas import JobRead
from app.web.checks import Health
from app.web.dependencies import ReadConnection
from app.web.problems import responses

TAG = {"name": "jobs", "description": "Work that continues after its request."}
router = APIRouter(prefix="/jobs", tags=[TAG["name"]])

_FIND = select(JOBS).where(
    JOBS.c.id == bindparam("job_id"),
    (JOBS.c.owner_id == bindparam("owner_id")) | bindparam("reads_all"),  # option: auth
)


def add_worker_info(database: Database, health: Health) -> None:
    """Show the workers in `/health/detailed`. The service is ready without them."""
    health.info["workers"] = partial(read_workers, database)


class JobNotFound(NotFound):
    """No job has this id."""


@router.get("/{job_id}", responses=responses(JobNotFound))
async def read_job(
    job_id: uuid.UUID,
    connection: ReadConnection,
    identity: CurrentIdentity,  # option: auth
) -> JobRead:
    """Return the status of a job, and its result or problem."""
    # An administrator reads the jobs of every account.  # option: auth
    values = {
        "job_id": job_id,
        "owner_id": identity.account_id,  # option: auth
        "reads_all": "jobs:read" in identity.permissions,  # option: auth
    }
    job = (await connection.execute(_FIND, values)).one_or_none()
    if job is None:
        raise JobNotFound
    return JobRead.model_validate(job)
