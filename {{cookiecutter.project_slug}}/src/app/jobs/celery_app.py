"""The Celery application: its settings, its broker and the schedule of the jobs."""

import ssl
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab

from app.jobs.definition import MAX_PAUSE_SECONDS, due_message
from app.jobs.heartbeat import BEAT_SECONDS
from app.jobs.registry import find_jobs
from app.service_info import SERVICE_NAME

LEASE_MARGIN_SECONDS = 30.0


def create_celery_app(url: str, *, timeout_seconds: float) -> Celery:
    longest = max((job.timeout_seconds for job in find_jobs().values()), default=0)
    return Celery(
        SERVICE_NAME,
        broker=_broker_url(url),
        set_as_current=False,
        config_source={
            "accept_content": ["json"],
            "beat_max_loop_interval": BEAT_SECONDS,
            "beat_schedule": _schedule(),
            "broker_connection_retry_on_startup": True,
            "broker_transport_options": {
                "global_keyprefix": f"{SERVICE_NAME}:celery:",  # other services may use this Redis
                "visibility_timeout": longest + MAX_PAUSE_SECONDS + LEASE_MARGIN_SECONDS,
                "unacked_restore_interval": 2,
                "unacked_restore_throttle": 1,
                "socket_timeout": timeout_seconds,
                "socket_connect_timeout": timeout_seconds,
                "max_retries": 1,
            },
            "broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_REQUIRED}
            if url.startswith("rediss")
            else None,
            "enable_utc": True,
            "task_acks_late": True,
            "task_default_queue": "jobs",
            "task_ignore_result": True,
            "task_reject_on_worker_lost": True,
            "worker_enable_remote_control": False,
            "worker_hijack_root_logger": False,
            "worker_prefetch_multiplier": 1,
            "worker_proc_alive_timeout": 30.0,
            "worker_redirect_stdouts": False,
        },
    )


def _broker_url(url: str) -> str:
    """Return the URL in kombu's form, which has another scheme and parameter for sockets."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


def _schedule() -> dict[str, Any]:
    return {
        job.name: {
            "task": job.name,
            "schedule": crontab.from_string(job.cron),
            "args": [BeatLazyFunc(_due, job.name)],
        }
        for job in find_jobs().values()
        if job.cron
    }


def _due(job: str) -> dict[str, Any]:
    return asdict(due_message(job))
