"""The jobs of every feature and of this package."""

from app.discovery import find_modules
from app.jobs.cleanup import delete_old_jobs
from app.jobs.definition import Job


def find_jobs() -> dict[str, Job]:
    """Return every job by name."""
    found = (value for module in find_modules("jobs") for value in vars(module).values())
    jobs = [delete_old_jobs, *(value for value in found if isinstance(value, Job))]
    return {job.name: job for job in jobs}
