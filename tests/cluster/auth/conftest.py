"""A real OpenID provider, a false one, and a home folder that knows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from ape_silverback.cluster.auth.login import Auth, log_in_by_hand
from ape_silverback.cluster.auth.tokens import Login, token_file
from demo.chain import free_port
from tests.cluster.auth import browser
from tests.conftest import ROOT

USER = "6f9619ff-8b86-d011-b42d-00c04fc964ff"  # the public SDK wants an access token's `sub` to be a UUID
MODULES = Path(os.environ.get("OIDC_PROVIDER_MODULES", ROOT / ".tools/node_modules"))


@dataclass(frozen=True)
class Provider:
    """The provider that runs.

    Attributes:
        issuer: its address.
        fixed_port: the only port that its client ``fixed`` may be sent back to.
    """

    issuer: str
    fixed_port: int

    def counts(self) -> dict[str, int]:
        return httpx.get(f"{self.issuer}/counts").json()

    def revoke(self, auth: Auth, token: str) -> None:
        httpx.post(
            f"{self.issuer}/token/revocation", data={"client_id": auth.client_id, "token": token}
        ).raise_for_status()


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    if not (node := shutil.which("node")) or not (MODULES / "oidc-provider").is_dir():
        pytest.skip("no Node with oidc-provider (`make install` does, OIDC_PROVIDER_MODULES names its folder)")
    port = free_port()
    command = [node, str(Path(__file__).with_name("provider.mjs")), str(MODULES), str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield Provider(json.loads(process.stdout.readline())["issuer"], port)
        process.stdin.close()


def write_profile(home: Path, host: str, client_id: str, name: str = "default") -> Auth:
    folder = home / ".silverback"
    folder.mkdir(exist_ok=True)
    with (folder / "profile.toml").open("a") as file:
        file.write(
            f'[auth.{name}]\nhost = "{host}"\nclient-id = "{client_id}"\n'
            f'[profile.{name}]\nhost = "http://127.0.0.1:9"\nauth = "{name}"\n'
        )
    return Auth(name, host, client_id)


@pytest.fixture
def auth(provider: Provider, home: Path) -> Auth:
    """The real provider, in the profile file of a fresh home."""
    return write_profile(home, provider.issuer, "native")


@pytest.fixture
def login(auth: Auth) -> Login:
    """Somebody who is logged in there."""
    return log_in_by_hand(auth, lambda address: browser.log_in(address, USER))


@pytest.fixture
def browse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Environment in which the browser is our user."""

    def environment(*arguments: str) -> dict[str, str]:
        script = Path(browser.__file__)
        return {"BROWSER": " ".join([sys.executable, str(script), "%s", *arguments, "&"])}

    return environment


def stored(auth: Auth) -> dict[str, Any]:
    return json.loads(token_file(auth.name).read_text())


def let_it_end(auth: Auth) -> None:
    """Make the stored access token one that has ended."""
    content = stored(auth)
    content["tokens"]["expires_at"] = int(time.time()) - 1
    token_file(auth.name).write_text(json.dumps(content))


# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Impostor:
    """A provider that answers whatever a test wants: each field is what it gets wrong."""

    issuer: str = ""
    discovery: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)  # path → body
    status: dict[str, int] = field(default_factory=dict)  # path → status
    redirect: dict[str, str] = field(default_factory=dict)  # path → Location
    signing_key: Any = None
    published_keys: list[dict[str, Any]] = field(default_factory=list)
    nonce: str = ""
    asked: list[str] = field(default_factory=list)

    def id_token(self) -> str:
        from joserfc import jwt

        now = int(time.time())
        claims = {"iss": self.issuer, "sub": USER, "aud": "us", "iat": now, "exp": now + 600, "nonce": self.nonce}
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        header = {"alg": "RS256", "kid": "one", **self.header}
        return jwt.encode(header, claims, self.signing_key, algorithms=[header["alg"]])

    def reply(self, path: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            there = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
            }
            return {name: value for name, value in {**there, **self.discovery}.items() if value is not None}
        if path == "/jwks":
            return {"keys": self.published_keys}
        if path == "/token":
            token = {"access_token": "SECRET-ACCESS", "token_type": "Bearer", "expires_in": 600}
            token |= {"refresh_token": "SECRET-REFRESH", "id_token": self.id_token()}
            return {name: value for name, value in {**token, **self.answer}.items() if value is not None}
        return {}

    def ask(self, address: str, **more: str) -> str:
        """Be the user, and give the address that the browser is sent to."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        self.nonce = query["nonce"]
        return f"{query['redirect_uri']}?{urlencode({'code': 'SECRET-CODE', 'state': query['state'], **more})}"


@pytest.fixture(scope="session")
def keys() -> dict[str, Any]:
    """Keys by name; `stranger` isn't the provider's, though it says so."""
    from joserfc.jwk import RSAKey

    return {
        "one": RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig"}),
        "stranger": RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig"}),
    }


@pytest.fixture
def impostor(keys: dict[str, Any]) -> Iterator[Impostor]:
    false_one = Impostor(signing_key=keys["one"], published_keys=[keys["one"].as_dict(private=False)])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            false_one.asked.append(path)
            body = false_one.raw.get(path)
            if body is None:
                body = json.dumps(false_one.reply(path)).encode()
            self.send_response(false_one.status.get(path, 200))
            if path in false_one.redirect:
                self.send_header("Location", false_one.redirect[path])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    false_one.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield false_one
    server.shutdown()
    server.server_close()


@pytest.fixture
def false_auth(impostor: Impostor, home: Path) -> Auth:
    """The false provider, in the profile file of a fresh home."""
    return write_profile(home, impostor.issuer, "us")
