"""An image registry on this machine, so that digests name images. Docker pushes to it over HTTP.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import hashlib
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
BLOB = re.compile(r"/v2/.+/blobs/(?P<digest>sha256:[0-9a-f]{64})")
UPLOADS = re.compile(r"/v2/.+/blobs/uploads/(?P<id>[0-9a-f]*)")


class Registry(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder  # of blobs and uploads
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # type and content
        self.address = f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if found := MANIFEST.fullmatch(path):
            stored = self.server.manifests.get((found["name"], found["reference"]))
            if stored is None:
                return self._answer(404)
            return self._answer(200, stored[1], kind=stored[0], digest=digest_of(stored[1]))
        if found := BLOB.fullmatch(path):
            blob = self.server.folder / found["digest"]
            if not blob.exists():
                return self._answer(404)
            return self._answer(200, blob.read_bytes(), digest=found["digest"])
        return self._answer(200 if path == "/v2/" else 404)

    do_HEAD = do_GET  # noqa: N815 - the name is that of http.server

    def do_POST(self) -> None:
        self._answer(202, location=f"{urlsplit(self.path).path}{uuid.uuid4().hex}")

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        self._receive()
        self._answer(202, location=path, range=f"0-{self._upload().stat().st_size - 1}")

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        if found := MANIFEST.fullmatch(parts.path):
            content = b"".join(self._body())
            digest = digest_of(content)
            for reference in (found["reference"], digest):
                stored = (self.headers["Content-Type"], content)
                self.server.manifests[found["name"], reference] = stored
            return self._answer(201, digest=digest)
        self._receive()
        (digest,) = parse_qs(parts.query)["digest"]
        self._upload().rename(self.server.folder / digest)
        return self._answer(201, digest=digest)

    def _upload(self) -> Path:
        found = UPLOADS.fullmatch(urlsplit(self.path).path)
        assert found
        return self.server.folder / found["id"]

    def _receive(self) -> None:
        with self._upload().open("ab") as file:
            file.writelines(self._body())

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(
        self, status: int, body: bytes = b"", kind: str = "", digest: str = "", **headers: str
    ) -> None:
        self.send_response(status)
        if kind:
            headers["Content-Type"] = kind
        if digest:
            headers["Docker-Content-Digest"] = digest
        headers["Content-Length"] = str(len(body))
        headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        for name, value in headers.items():
            self.send_header(name.title(), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def running_registry(folder: Path) -> Iterator[Registry]:
    with Registry(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
