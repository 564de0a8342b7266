"""An S3 server on loopback, in a thread of this process: it counts what it sends, and fails on demand."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """A request and what was answered."""

    method: str
    path: str
    query: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Server:
    """The server.

    Attributes
    ----------
    url
        Its address.
    requests
        Everything that was asked.
    fault
        Called with each request; returns ``cut`` (the connection breaks amid the answer), a status, or None.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    fault: Callable[[Request], str | int | None] = lambda request: None

    def environment(self) -> dict[str, str]:
        """Variables that lead S3 clients here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # the client's own tries, which come on top of ours
            "AWS_MAX_ATTEMPTS": "2",
        }

    def sent(self, name: str = "") -> int:
        """Bytes of objects sent, of those with a name only."""
        return sum(item.sent for item in self.requests if item.method == "GET" and name in item.path)

    def made(self, method: str, name: str = "") -> list[Request]:
        return [item for item in self.requests if item.method == method and name in item.path]

    @contextlib.contextmanager
    def failing(self, fault: Callable[[Request], str | int | None]) -> Iterator[None]:
        self.fault = fault
        try:
            yield
        finally:
            self.fault = lambda request: None


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """A server on 127.0.0.1, on a free port, as long as the context lasts."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

    store = DomainDispatcherApplication(create_backend_app)
    server = Server()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = Request(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], environ.get("HTTP_RANGE")
        )
        server.requests.append(request)
        fault = server.fault(request)
        if isinstance(fault, int):
            request.status = fault
            code = {403: "AccessDenied", 503: "ServiceUnavailable"}.get(fault, "Error")
            text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            if int(environ.get("CONTENT_LENGTH") or 0):
                environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            body = b"" if request.method == "HEAD" else text
            start_response(f"{fault} {code}", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
            return [body]

        def noted(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            request.status = int(status.split()[0])
            return start_response(status, headers, *more)

        pieces = [bytes(piece) for piece in store(environ, noted)]
        whole = b"".join(pieces)
        request.sent = len(whole)
        return _cut(whole) if fault == "cut" else [whole]

    listener = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listener.server_port}"
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _cut(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    raise ConnectionAbortedError


@contextlib.contextmanager
def client_of(server: Server) -> Iterator[Any]:
    """The environment and a file system of a server."""
    import fsspec
    import s3fs

    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("AWS_", "FSSPEC_")):
            del os.environ[name]
    os.environ.update(server.environment())
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield fsspec.filesystem("s3", use_listings_cache=False)
    finally:
        os.environ.clear()
        os.environ.update(before)
        s3fs.S3FileSystem.clear_instance_cache()
