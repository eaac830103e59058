"""The page that shows caught mails, and a stand-in for the frontend that their links open."""

from typing import Any

import httpx
from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app.dev.mail.folder import find_mail, find_mails

# Actions of links: the request of the second step, as a frontend sends it. See docs/accounts.md.
ACTIONS = {
    "verify-email": ("Confirm the address", "/accounts/verification/confirm"),
    "reset-password": ("Set the password", "/accounts/password/reset"),
    "change-email": ("Confirm the new address", "/accounts/email/confirm"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The HTML of a mail runs no script, loads nothing, and has the origin of no page. Its links open
# other tabs.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'self'"
)

_templates = Environment(
    autoescape=True,
    line_statement_prefix="%",
    loader=PackageLoader("app.dev.mail"),
)


def create_page(service_url: str) -> Starlette:
    """Return the application of the page.

    Args:
        service_url: of the service, which receives the tokens of links.
    """

    async def follow(request: Request) -> Response:
        if request.path_params["action"] not in ACTIONS:
            raise HTTPException(404)
        _, path = ACTIONS[request.path_params["action"]]
        values = dict(await request.form())
        try:
            async with httpx.AsyncClient(base_url=service_url) as client:
                response = await client.post(path, json=values)
        except httpx.TransportError as error:
            return _render("result", result=f"{service_url}: {error}", service=service_url)
        result = f"{response.status_code} {response.reason_phrase} {response.text}"
        return _render("result", result=f"POST {path}: {result}", service=service_url)

    return Starlette(
        routes=[
            Route("/", _list),
            Route("/mails/{mail_id}", _show),
            Route("/mails/{mail_id}/html", _show_html),
            Route("/account", _show_account),
            Route("/account.js", _script),
            Route("/account/{action}", follow, methods=["POST"]),
        ],
        # A site whose name resolves to 127.0.0.1 (DNS rebinding) cannot read mails.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])],
    )


def _list(_request: Request) -> Response:
    return _render("list", mails=reversed(find_mails()))


def _show(request: Request) -> Response:
    mail = find_mail(request.path_params["mail_id"])
    if mail is None:
        raise HTTPException(404)
    return _render("mail", mail=mail)


def _show_html(request: Request) -> Response:
    mail = find_mail(request.path_params["mail_id"])
    if mail is None:
        raise HTTPException(404)
    content = f'<base target="_blank">{mail.html}'
    return HTMLResponse(content, headers={**HEADERS, "Content-Security-Policy": MAIL_POLICY})


def _show_account(_request: Request) -> Response:
    return _render("account", actions=ACTIONS)


def _script(_request: Request) -> Response:
    script = _templates.get_template("account.js").render()
    return Response(script, media_type="text/javascript", headers=HEADERS)


def _render(name: str, **values: Any) -> Response:
    content = _templates.get_template(f"{name}.html").render(values)
    return HTMLResponse(content, headers={**HEADERS, "Content-Security-Policy": PAGE_POLICY})
