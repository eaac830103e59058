"""uvicorn's HTTP/1.1 protocol, with three corrections that uvicorn lacks.

No other module subclasses a class of uvicorn. `test_http_protocol.py` runs uvicorn
without this module, and fails when uvicorn has made one of the corrections: then remove it here.

1. uvicorn accepts a head, and trailers, of any size and keeps them in memory.
   https://github.com/Kludex/uvicorn/issues/157 was closed without a limit for this protocol.
2. uvicorn appends trailers to the headers, although proxies pass trailers on unchecked. A client
   could send X-Forwarded-For that way (RFC 9110, 6.5.1). There is no upstream issue.
3. uvicorn drops the host of a target in absolute form (RFC 9112, 3.2.2).
   https://github.com/Kludex/uvicorn/pull/3097 is open.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.web.hosts import TARGET_URL

MAX_HEAD_BYTES = 65_536  # of a head, or of trailers; proxies send less


class HttpProtocol(HttpToolsProtocol):
    """Limit heads and trailers, drop trailers, and pass on targets in absolute form."""

    _is_in_head = True
    _head_bytes = 0  # received since the last head or part of a body was complete

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            message = "The head of the request is too large."
            self.logger.warning(message)
            self.send_400_response(message)

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        if not self.url.startswith(b"/"):
            self.scope["extensions"] = {TARGET_URL: {"url": self.url}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)
