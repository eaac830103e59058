"""The frontend of the accounts page logs in with a provider: three processes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bake
from node import NODE, needs_npx, run
from test_first_minutes import environment, processes_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.posix]

PAGE = "http://localhost:3000/login"
PROVIDER = """
import sys
sys.path.append("tests/support")
from login_provider import LoginProvider
print(LoginProvider().issuer, flush=True)
sys.stdin.read()
"""
# A browser without a window: it keeps the cookie, and follows one redirect after the other.
BROWSER = """
const define = (name, value) => Object.defineProperty(globalThis, name, { value });
const stored = new Map();
define("sessionStorage", {
  setItem: (name, value) => stored.set(name, value),
  getItem: (name) => stored.get(name),
});
define("location", { hash: "", pathname: "/login", assign(url) { this.opened = url; } });
define("history", { replaceState() {} });

%s

const open = async (url, headers = {}) => {
  const response = await fetch(url, { redirect: "manual", headers });
  if (response.status >= 400) throw new Error(await response.text());
  return [response.headers.get("location"), response.headers.getSetCookie()];
};
await logIn("keycloak");
const [consent, [cookie]] = await open(location.opened);
const [callback] = await open(consent);
const [page] = await open(callback, { cookie: cookie.split(";")[0] });
location.hash = new URL(page).hash;
const tokens = await finishLogin();
const headers = { authorization: `Bearer ${tokens.access_token}` };
const account = await (await fetch(`${service}/me`, { headers })).json();
const repeated = await finishLogin().catch((error) => error.message);
console.log(JSON.stringify({ page: page.split("#")[0], account, repeated }));
"""


@needs_npx
def test_frontend_of_the_accounts_page_logs_in_with_a_provider(bake: Bake, tmp_path: Path) -> None:
    project = bake(lock=True, auth="accounts", redis=False).copy_to(tmp_path / "project")
    page = (project / "docs" / "accounts.md").read_text(encoding="utf-8")
    ((code),) = re.findall(r"^```js\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    ((entry),) = re.findall(r"^LOGIN_PROVIDERS='(.*)'$", page, re.MULTILINE)
    sync = ["uv", "sync", "--quiet", "--no-python-downloads", "--python", sys.executable]
    env = environment(tmp_path)
    subprocess.run(sync, cwd=project, env=env, check=True)
    with subprocess.Popen(
        [project / ".venv" / "bin" / "python", "-c", PROVIDER],
        cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as provider:  # fmt: skip
        assert provider.stdin is not None
        assert provider.stdout is not None
        entry = entry.replace(
            "https://login.example.com/realms/main", provider.stdout.readline().strip()
        )
        entry = entry.replace('"api"', '"client-of-the-tests"').replace(
            '"..."', '"secret-of-the-tests"'
        )
        env |= {"LOGIN_PROVIDERS": entry, "LOGIN_REDIRECT_URL": PAGE}
        with serving([".venv/bin/app", "dev", "--no-reload"], project, env) as url:
            script = tmp_path / "browser.mjs"
            script.write_text(BROWSER % code.replace("https://api.example.com", url))
            output = run(["npx", "--yes", "--package", NODE, "--", "node", script], tmp_path)
        provider.stdin.close()
        assert provider.wait(10) == 0
    found = json.loads(output.splitlines()[-1])
    assert found["page"] == PAGE
    assert found["account"]["email"] == "grace@navy.example"
    assert found["account"]["email_verified_at"] is not None
    assert found["repeated"] == "urn:problem:invalid-code"
    assert processes_of(project) == []
