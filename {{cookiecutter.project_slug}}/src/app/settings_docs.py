"""What people read about the settings, made from the class.

`.env.example`, `.env.production.template` and docs/settings.md.
"""

from collections.abc import Iterator

from app.settings import Settings

RANDOM = '`python3 -c "import secrets; print(secrets.token_urlsafe(32))"`'
REQUIRED = ["ENVIRONMENT", "DATABASE_URL", "ALLOWED_HOSTS"]
REQUIRED += ["AUTH_KEYS"]  # option: auth
# Where a value in production comes from; what is not named has a default to begin with.
SOURCES = {
    "ENVIRONMENT": "Write production, or staging.",
    "COMMIT_SHA": "The image has it, if it was built by `make image`.",
    "HOST": "Leave it out: every address is right in a container.",
    "PORT": "Leave it out: the platform says which, or it is 8000.",
    "LOG_FORMAT": "Leave it out: json is right.",
    "DATABASE_URL": "The platform shows it with the database: take the one of the private network.",
    "DATABASE_UNPOOLED_URL": "The same place, if DATABASE_URL goes through a pooler.",
    "ALLOWED_HOSTS": "The names that clients type: api.example.com",
    "CORS_ORIGINS": "Ask whoever writes the browser's side; without one, leave it out.",
    "FORWARDED_ALLOW_IPS": "The network of the platform's proxies; its documentation names it.",
    "API_DOCS": "Write true to publish the documentation of the API.",
    "HEALTH_TOKEN": f"Make it with {RANDOM}",
    "REDIS_URL": "The platform shows it with Redis.",  # option: redis
    "OTEL_EXPORTER_OTLP_ENDPOINT": "The address of your collector.",  # option: tracing
    "SENTRY_DSN": "In Sentry: the project's settings, Client Keys.",  # option: sentry
    "WEBHOOK_SECRETS": "docs/webhooks.md says where each comes from.",  # option: webhooks
    "WEBHOOK_VERIFY_TOKEN": f"Make it with {RANDOM}",  # option: webhooks
    "METRICS_TOKEN": f"Make it with {RANDOM}",  # option: metrics
    "AUTH_KEYS": f"A name, a colon and the output of {RANDOM}",  # option: auth
}


def env_template() -> str:
    """Every variable with its meaning and default, in the form of an `.env` file."""
    return "\n".join(f"# {text}\n# {name}={default}\n" for name, default, text in _variables())


def production_template() -> str:
    """The same for production: what must be set comes first, and where each value comes from."""
    head = (
        "# What production needs, as variables of the platform.\n"
        "# A copy with values in it is a secret: it belongs in no repository.\n"
    )
    required_first = sorted(_variables(), key=lambda variable: variable[0] not in REQUIRED)
    return head + "".join(
        f"\n# {text}\n# {SOURCES.get(name, 'Leave it out to begin with.')}\n"
        + (f"{name}=\n" if name in REQUIRED else f"# {name}={default}\n")
        for name, default, text in required_first
    )


def settings_page() -> str:
    """The same as a page for docs/."""
    head = "# Settings\n\nMade by `uv run app env --page`, from `src/app/settings.py`.\n"
    return head + "".join(
        f"\n## {name}\n\n{text}\n{f'Default: `{default}`.' if default else 'Not set by default.'}\n"
        for name, default, text in _variables()
    )


def _variables() -> Iterator[tuple[str, str, str]]:
    for name, field in Settings.model_fields.items():
        default = field.default
        value = ",".join(default) if isinstance(default, list) else default
        yield name.upper(), "" if value is None else str(value), field.description or ""
