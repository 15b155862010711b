"""How requests reach an address: never through a proxy on loopback, never for longer or with more than was allowed."""

from __future__ import annotations

import gzip
import itertools
import json
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ape_silverback.cluster.auth.oidc import Provider
from ape_silverback.cluster.base_client import MOST_PAGES, Retries
from ape_silverback.cluster.client import ClusterClient, PlatformClient
from ape_silverback.cluster.types import BotTaskResult
from ape_silverback.exceptions import (
    AnswerTooLarge,
    ClusterError,
    ConnectionBroken,
    EnvironmentVariableError,
    ProxyFailed,
    RequestTimeout,
    TooManyPages,
    UnexpectedAnswer,
)
from ape_silverback.transport import MAX_BYTES, deadline
from tests.cluster.server import BOT, Reply, Request, answer, in_turn, serving
from tests.conftest import run_ape

ONCE = Retries(attempts=1, deadline=20.0)
FAR = "http://far.example"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# Proxies


def ask_cluster(url: str) -> None:
    with ClusterClient(base_url=url, headers={"X-API-Key": "k"}, retries=ONCE) as client:
        _ = client.bots


def ask_platform(url: str) -> None:
    with PlatformClient(base_url=url, retries=ONCE) as client:
        _ = client.workspaces


def ask_provider(url: str) -> None:
    with Provider(url, "client"):
        pass


@pytest.mark.parametrize("ask", [ask_cluster, ask_platform, ask_provider])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_never_goes_through_a_proxy(
    ask: Callable[[str], None], variable: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(in_turn(answer([]))) as proxy, serving(in_turn(answer([]))) as server:
        monkeypatch.setenv(variable, proxy.url)
        try:
            ask(f"http://{host}:{server.server_port}")
        except UnexpectedAnswer:  # an empty list describes no OpenID provider
            assert ask is ask_provider
        assert not proxy.requests
        assert server.requests


@pytest.mark.parametrize("options", [{"limits": httpx.Limits()}, {"http2": False}, {"verify": False}])
def test_no_option_of_a_client_brings_loopback_back_to_the_proxy(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(in_turn(answer([]))) as proxy, serving(in_turn(answer([]))) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with ClusterClient(base_url=server.url, **options) as client:
            assert client.bots == {}
        assert not proxy.requests


@pytest.mark.parametrize("broken", ["socks://x", "socks5://127.0.0.1:9", "nonsense://", "http://", "http://[::1"])
def test_a_broken_proxy_setting_doesnt_matter_on_loopback(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", broken)
    monkeypatch.setenv("ALL_PROXY", broken)
    monkeypatch.setenv("NO_PROXY", "[::1],*x,,")
    with serving(in_turn(answer([]))) as server:
        ask_cluster(server.url)


def test_another_address_is_reached_through_the_proxy_unless_it_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(in_turn(answer([]))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        ask_cluster(FAR)
        assert [request.headers["Host"] for request in proxy.requests] == ["far.example"]
        monkeypatch.setenv("NO_PROXY", "far.example")
        with pytest.raises(ClusterError):  # which has no address
            ask_cluster(FAR)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("proxy", ["http://u:very-secret@127.0.0.1:9", "socks5://u:very-secret@127.0.0.1:9"])
def test_a_proxy_that_cant_be_reached_is_named_with_its_variable(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ProxyFailed, match=r"the proxy 127\.0\.0\.1:9 \(ALL_PROXY\) can't be reached") as caught:
        ask_cluster(FAR)
    assert "very-secret" not in str(caught.value)


def test_a_proxy_that_breaks_the_connection_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(in_turn(Reply(200, b"lost", reset_after=0))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(ConnectionBroken, match=r"far\.example/bots through the proxy 127.* \(HTTP_PROXY\) broke"):
            ask_cluster(FAR)


@pytest.mark.parametrize("proxy", ["socks://very-secret", "nonsense://very-secret", "http://"])
def test_a_proxy_setting_that_cant_be_used_is_an_error_that_names_the_variable(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(EnvironmentVariableError, match="HTTP_PROXY isn't the address of a proxy") as caught:
        ask_cluster(FAR)
    assert "very-secret" not in str(caught.value)


def test_proxies_of_the_environment_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks://x")
    with ClusterClient(base_url=FAR, retries=ONCE, trust_env=False) as client, pytest.raises(ClusterError):
        _ = client.bots


# Certificates


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("path", ["/nonexistent", __file__])
def test_certificates_that_cant_be_used_are_an_error_that_names_the_variable(
    variable: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, path)
    with pytest.raises(EnvironmentVariableError, match=f"{variable}={path} can't be used"):
        ask_cluster("https://127.0.0.1:9")
    with serving(in_turn(answer([]))) as server:  # plain HTTP on this machine needs none
        ask_cluster(server.url)


# Time


@contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """Serve an answer whose every byte comes within any time-out for one byte."""

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            for byte in itertools.chain(head, itertools.repeat(ord("x"))):
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_headers_and_bodies_that_drip_end_at_the_deadline(head: bytes) -> None:
    begun = time.monotonic()
    with (
        dripping(head) as url,
        ClusterClient(base_url=url, retries=Retries(attempts=1, deadline=1.5)) as client,
        pytest.raises(RequestTimeout),
    ):
        _ = client.bots
    assert 1.0 < time.monotonic() - begun < 6.0


SILENT_RESOLVER = """
import fcntl, http.server, pathlib, socket, struct, subprocess, sys, threading, time
with socket.socket() as any_socket:  # the loopback interface of a new network is down
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
two = "127.0.0.2 two.example" + chr(10) + "127.0.0.1 two.example"
for file, content in (("resolv.conf", "nameserver 127.0.0.1"), ("nsswitch.conf", "hosts: files dns"), ("hosts", two)):
    path = pathlib.Path(sys.argv[1], file)
    path.write_text(content + chr(10))
    there = pathlib.Path("/etc", file).resolve()
    subprocess.run(["mount", "--bind", path, there], check=True)
from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.exceptions import RequestTimeout
begun = time.monotonic()
client = ClusterClient(base_url="https://cluster.example.org", retries=Retries(attempts=1, deadline=1.5))
try:
    client.bots
except RequestTimeout as error:
    print(f"{time.monotonic() - begun:.1f}", error, sep=chr(10))
print(len(silent.recv(4096)) > 0)

class Empty(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

server = http.server.HTTPServer(("127.0.0.1", 0), Empty)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(ClusterClient(base_url=f"http://two.example:{server.server_port}").bots)
"""
"""A machine whose name server gets questions and never answers (the system's resolver waits for 10 s or more), and a
name with two addresses, of which only the second one is served."""


def test_a_name_server_that_never_answers_holds_nothing_up(tmp_path: Path) -> None:
    apart = ["unshare", "--map-root-user", "--net", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no network namespaces")
    command = [*apart, sys.executable, "-c", SILENT_RESOLVER, tmp_path]
    begun = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    seconds, text, asked, bots = result.stdout.splitlines()
    assert 1.0 < float(seconds) < 5.0
    assert "cluster.example.org" in text
    assert asked == "True"
    assert bots == "{}", "the next address of a name is tried"
    assert time.monotonic() - begun < 30, "the command ends, though the question is still open"


def test_the_earlier_of_two_deadlines_holds() -> None:
    with deadline(1.0) as outer, deadline(60.0) as inner:
        assert inner == outer
    with deadline(60.0) as outer, deadline(1.0) as inner:
        assert inner < outer


# Size


def endless(compressed: bool) -> Reply:
    piece = b" " * (1 << 20)
    headers = {"Content-Type": "application/json"}
    if not compressed:
        return Reply(200, headers=headers, chunks=itertools.repeat(piece))
    bomb = gzip.compress(piece * 64)
    return Reply(200, headers={**headers, "Content-Encoding": "gzip"}, chunks=itertools.repeat(bomb))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_answer_ends_at_its_bound_whatever_it_unpacks_to(compressed: bool, status: int) -> None:
    reply = endless(compressed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        serving(lambda _: Reply(status, headers=reply.headers, chunks=reply.chunks)) as server,
        ClusterClient(base_url=server.url, retries=ONCE) as client,
        pytest.raises(AnswerTooLarge, match="more than 8 MiB"),
    ):
        _ = client.bots
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 3 * 64 * 1024, "KiB: less than three times what the bomb unpacks to"


def test_what_a_bot_recorded_has_a_bound_too() -> None:
    recorded = {"completed": "2026-01-01T00:00:00Z", "task": "t", "execution_time": 0.1, "error": "x" * 900_000}
    line = json.dumps(recorded).encode() + b"\n"
    listed = {"/bots": [BOT], "/openapi.json": {"info": {"x-extensions": ["metrics"]}}}

    def behave(request: Request) -> Reply:
        return answer(listed[request.path]) if request.path in listed else Reply(200, chunks=itertools.repeat(line))

    with serving(behave) as server, ClusterClient(base_url=server.url, retries=ONCE) as client:
        read: list[BotTaskResult] = []
        with pytest.raises(AnswerTooLarge, match="more than 48 MiB"):
            read.extend(client.bots["a"].get_metrics())
        assert len(read) > 40


def test_gzip_is_unpacked() -> None:
    packed = Reply(200, gzip.compress(b"[]" + b" " * 300_000), {"Content-Encoding": "gzip"})
    with serving(in_turn(packed)) as server, ClusterClient(base_url=server.url) as client:
        assert client.bots == {}
        assert server.requests[0].headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(gzip.compress(b"[]" * 9999, mtime=0)[:-9], "gzip"), (b"[]", "br"), (b"no gzip", "gzip")],
    ids=["cut-gzip", "unknown", "no-gzip"],
)
def test_what_cant_be_decompressed_is_an_unexpected_answer(body: bytes, encoding: str) -> None:
    with (
        serving(in_turn(Reply(200, body, {"Content-Encoding": encoding}))) as server,
        ClusterClient(base_url=server.url, retries=ONCE) as client,
        pytest.raises(UnexpectedAnswer, match="can't be decompressed"),
    ):
        _ = client.bots


def test_pages_that_never_end_are_an_error() -> None:
    numbers = itertools.count()

    def behave(request: Request) -> Reply:
        return answer({"items": [], "next": f"/bots?page={next(numbers)}"})

    with (
        serving(behave) as server,
        ClusterClient(base_url=server.url, retries=ONCE) as client,
        pytest.raises(TooManyPages, match=f"more than {MOST_PAGES} pages"),
    ):
        _ = client.bots
    assert len(server.requests) == MOST_PAGES + 1


def test_pages_that_are_too_large_together_are_an_error() -> None:
    numbers = itertools.count()
    padding = " " * (MAX_BYTES // 3)

    def behave(request: Request) -> Reply:
        return answer({"items": [BOT], "next": f"/bots?page={next(numbers)}", "padding": padding})

    with (
        serving(behave) as server,
        ClusterClient(base_url=server.url, retries=ONCE) as client,
        pytest.raises(AnswerTooLarge),
    ):
        _ = client.bots


@pytest.mark.parametrize(
    "reply",
    [
        answer({"detail": "x" * 1_000_000}, 400),
        answer({"detail": [{"loc": ["y" * 9999], "msg": "x" * 9999} for _ in range(200)]}, 422),
        answer([{**BOT, "status": 1, "environment": ["x"] * 9999 + [5]}]),
        Reply(200, b"x" * 1_000_000),
    ],
)
def test_a_servers_text_is_shown_in_part(reply: Reply) -> None:
    with serving(in_turn(reply)) as server, ClusterClient(base_url=server.url, retries=ONCE) as client:
        with pytest.raises(ClusterError) as caught:
            _ = client.bots
        assert len(str(caught.value)) < 50_000


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"[" + b"{}," * 1_000_000 + b"{}]"),
        Reply(200, b'{"networks": {}, "bots": {' + b",".join(b'"%d":1' % one for one in range(400_000)) + b"}}"),
        answer({"detail": [{"loc": ["a", one], "msg": "m"} for one in range(100_000)]}, 422),
    ],
    ids=["objects", "health", "fields"],
)
def test_a_million_wrong_values_are_one_error_in_bounded_memory_and_time(reply: Reply) -> None:
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(in_turn(reply)) as server, ClusterClient(base_url=server.url, retries=ONCE) as client:
        for ask in (lambda: client.bots, lambda: client.health):
            with pytest.raises(ClusterError) as caught:
                ask()
            assert len(str(caught.value)) < 5000
    assert time.process_time() - begun < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024, "KiB"


# The whole command


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, ""),
        ({"HTTP_PROXY": "socks://x", "NO_PROXY": "[::1]"}, ""),
        ({"SILVERBACK_CLUSTER_URI": "https://far.example", "SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE"),
        ({"SILVERBACK_CLUSTER_URI": "https://far.example", "ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY"),
    ],
)
def test_a_command_on_loopback_works_and_elsewhere_names_the_setting(
    settings: dict[str, str], said: str, home: Path, project: Path
) -> None:
    with serving(in_turn(answer([]))) as server:
        environment = {"SILVERBACK_CLUSTER_URI": server.url, "SILVERBACK_CLUSTER_API_KEY": "k", **settings}
        result = run_ape(home, project, ["silverback", "cluster", "bots", "list", "--format", "json"], **environment)
    assert "Traceback" not in result.stderr
    if said:
        assert (result.returncode, said in result.stderr) == (1, True), result.stderr
    else:
        assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
