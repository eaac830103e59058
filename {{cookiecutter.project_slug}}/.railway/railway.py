"""The resources on Railway: `railway config plan` shows the changes, `apply` makes them.

The build and deploy settings come from railway.json, so that the two files cannot differ. The
variables are those of .env.production.template.
"""

import json
import re
from pathlib import Path

import railway_sdk as railway

ROOT = Path(__file__).parent.parent
CONFIG = json.loads((ROOT / "railway.json").read_text(encoding="utf-8"))
BUILD, DEPLOY = CONFIG["build"], CONFIG["deploy"]
TEMPLATE = (ROOT / ".env.production.template").read_text(encoding="utf-8")
# Railway deletes variables that this file does not name. Preserve those that were set by hand.
NAMES = re.findall(r"^(?:# )?([A-Z_]+)=", TEMPLATE, re.MULTILINE)
BY_HAND = {name: railway.preserve() for name in NAMES}

PROJECT = "example-service"
PROXIES = "100.0.0.0/8"  # the network of Railway's edge
PGVECTOR = "pgvector/pgvector:pg18"  # option: pgvector
# Not railway.redis(), which sets no REDIS_URL. A full Redis evicts expiring keys.  # option: redis
REDIS = "docker-entrypoint.sh redis-server --protected-mode no"  # option: redis
REDIS += " --maxmemory 256mb --maxmemory-policy volatile-lru"  # option: redis


@railway.define_railway
def main() -> railway.Project:
    database = railway.postgres("database")
    database = railway.database("database", "postgres", image=PGVECTOR)  # option: pgvector
    variables = BY_HAND | {
        "ENVIRONMENT": "production",
        "DATABASE_URL": database.env.DATABASE_URL,
        "ALLOWED_HOSTS": "${{RAILWAY_PUBLIC_DOMAIN}}",
        "FORWARDED_ALLOW_IPS": PROXIES,
    }
    variables["REDIS_URL"] = "redis://${{cache.RAILWAY_PRIVATE_DOMAIN}}:6379/0"  # option: redis
    app = railway.service("app", build=BUILD, deploy=DEPLOY, env=variables)
    resources = [database, app]

    cache = {"source": railway.image("redis:8"), "start": REDIS}  # option: redis
    resources += [railway.service("cache", **cache)]  # option: redis
    like_app = {"build": BUILD, "deploy": DEPLOY}  # option: worker
    like_app["env"] = {name: app.env[name] for name in variables}  # option: worker
    resources += [railway.service("worker", start="app worker", **like_app)]  # option: worker
    return railway.project(PROJECT, resources=resources)
