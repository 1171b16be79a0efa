"""A small OpenID Connect issuer on this machine, whose keys, answers and mishaps a test decides."""

from __future__ import annotations

import base64
import functools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "https://risk.example"
METHODS = {"RSA": "RS256", "OKP": "EdDSA", "EC": "ES256"}


@functools.cache
def private_key(kind: str, number: int = 0) -> Any:
    """Return one of the private keys of a kind; making an RSA key takes a while."""
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "EC":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(kind: str) -> bytes:
    return (
        private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(kid: str, kind: str, number: int = 0, **more: Any) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name(METHODS[kind])
    public: dict[str, Any] = algorithm.to_jwk(private_key(kind, number).public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", "alg": METHODS[kind], **more}


class LocalIssuer:
    """What it answers by path is `documents`: None hangs until `let_go`. `asked` are the paths."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                status, body = issuer.answer(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/realms/risk"
        self.jwks: list[dict[str, Any]] = [jwk("rsa", "RSA"), jwk("ed", "OKP")]
        self.documents: dict[str, Any] = {}
        self.status = 200
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def looks(self) -> int:
        """How often the keys were asked for."""
        return self.asked.count("/realms/risk/keys")

    def answer(self, path: str) -> tuple[int, bytes]:
        documents = {
            "/realms/risk/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
            },
            "/realms/risk/keys": {"keys": self.jwks},
        } | self.documents
        if path not in documents:
            return 404, b""
        document = documents[path]
        if document is None:
            self.let_go.wait(30)
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.status, body

    def token(
        self,
        kind: str = "RSA",
        *,
        number: int = 0,
        header: dict[str, Any] | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        """Return a good token, but for what is said."""
        now = int(time.time())
        all_claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "248289761001",
            "preferred_username": "ada",
            "iat": now,
            "exp": now + 300,
            **claims,
        }
        all_claims.pop(without, None)
        kid = {"RSA": "rsa", "OKP": "ed", "EC": "ec"}[kind]
        headers = {"kid": kid, **(header or {})}
        key = private_key(kind, number)
        return jwt.encode(all_claims, key, algorithm=METHODS[kind], headers=headers)

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def forged(token: str, header: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token with another header and another signature."""
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    tail = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}.{tail}"


@contextmanager
def local_issuer(port: int = 0) -> Iterator[LocalIssuer]:
    issuer = LocalIssuer(port)
    try:
        yield issuer
    finally:
        issuer.close()
