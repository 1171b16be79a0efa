"""A small server on this machine that heads are posted to; it fails and hangs as a test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalReceiver:
    """`notes` are what arrived, with `headers`, `tries` how many came; `status` is its answer.

    While `hangs` is set it answers nobody. GET answers `content`.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.notes: list[str] = []
        self.types: set[str | None] = set()
        self.headers: list[dict[str, str]] = []
        self.tries = 0
        self.status = 204
        self.hangs = threading.Event()
        self._let_go = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                note = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.tries += 1
                if receiver.hangs.is_set():
                    receiver._let_go.wait(30)
                    return
                status = receiver.status
                if status < 300:
                    receiver.types.add(self.headers["content-type"])
                    receiver.headers.append({k.lower(): v for k, v in self.headers.items()})
                    receiver.notes.append(note)
                self.send_response(status)
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/heads?token=secret"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def sizes(self) -> list[int]:
        """How many calls the heads that arrived have."""
        return [int(note.split("\n")[1]) for note in self.notes]

    @property
    def arrived(self) -> list[int]:
        """The same, without those that came again because their answer was too late."""
        return list(dict.fromkeys(self.sizes))

    def close(self) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def local_receiver(content: bytes = b"") -> Iterator[LocalReceiver]:
    receiver = LocalReceiver(content)
    try:
        yield receiver
    finally:
        receiver.close()
