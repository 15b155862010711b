"""A cluster that is served in the foreground, and copies of it."""

from __future__ import annotations

import os
import signal
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ape_silverback.cluster.base_client import Retries
from ape_silverback.cluster.client import ClusterClient
from ape_silverback.cluster.types import ResourceStatus
from ape_silverback.exceptions import ValidationFailed
from demo.chain import free_port
from tests.certificates import make_certificate
from tests.conftest import Ape, ape_command, environment_of


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback interface, and its key."""
    return make_certificate(tmp_path)


@contextmanager
def serving(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a cluster as a service manager does; yields the process and its ready line."""
    process = subprocess.Popen(
        [ape_command(), "silverback", "cluster", "serve", *options],
        env=environment_of(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("Serving"):
                break
        assert said, "no ready line"
        assert said[-1].startswith("Serving"), "".join(said)
        yield process, said[-1]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stderr.close()


def test_it_serves_with_tls_says_when_it_is_ready_and_ends_by_sigterm(
    home: Path, certificate: tuple[Path, Path]
) -> None:
    port, folder = free_port(), home / "served"
    tls = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with serving(home, "--folder", str(folder), "--host", "0.0.0.0", "--port", str(port), *tls) as (process, ready):
        assert f"https://0.0.0.0:{port}" in ready
        key = (folder / "api-key").read_text()
        assert key not in ready
        assert stat.S_IMODE((folder / "api-key").stat().st_mode) == 0o600
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        url = f"https://127.0.0.1:{port}"
        assert httpx.get(f"{url}/healthz", verify=trust).json() == {"ok": True}
        assert httpx.get(f"{url}/bots", verify=trust).status_code == 401
        assert httpx.get(f"{url}/bots", verify=trust, headers={"X-API-Key": key}).json() == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert [file.name for file in folder.glob("cluster.db*")] == ["cluster.db"], "a copy of it is whole"


@pytest.mark.parametrize(
    ("options", "tells"),
    [
        (("--host", "0.0.0.0"), "--insecure"),
        (("--tls-cert", "cert.pem"), "--tls-key"),
        (("--tls-cert", "no.pem", "--tls-key", "no.pem"), "no.pem can't be read"),
        (("--runtime", "kubernetes"), "no runtime 'kubernetes' is installed"),
    ],
)
def test_what_would_be_wrong_is_refused_before_it_listens(ape: Ape, options: tuple[str, ...], tells: str) -> None:
    result = ape("silverback", "cluster", "serve", *options)
    assert result.returncode == 1
    assert tells in result.stderr
    assert "Traceback" not in result.stderr


def test_bots_run_only_from_folders_that_are_allowed_until_others_are(home: Path, project: Path, ape: Ape) -> None:
    for folder in (project, home / "other"):
        (folder / "bots").mkdir(parents=True)
        (folder / "bots" / "one.py").write_text("import time\ntime.sleep(600)\n")
    (project / "link").symlink_to(home / "other")
    folder, port = home / "served", free_port()
    options = ("--folder", str(folder), "--port", str(port))
    network = {"ecosystem": "ethereum", "network": "local", "provider": "foundry"}
    with serving(home, *options, "--allow", str(project)), client_of(port, folder) as client:
        client.new_bot(name="one", image=f"project:{project}#one", **network)
    with serving(home, *options), client_of(port, folder) as client:
        for elsewhere in (home / "other", project / "link", project / ".." / "home" / "other"):
            with pytest.raises(ValidationFailed, match=f"this cluster runs projects in {project} only"):
                client.new_bot(name="two", image=f"project:{elsewhere}#one", **network)
        with pytest.raises(ValidationFailed, match="only"):
            client.bots["one"].update(image=f"project:{home / 'other'}#one")
    with serving(home, *options, "--allow", "/"), client_of(port, folder) as client:
        client.new_bot(name="two", image=f"project:{home / 'other'}#one", **network)
    (folder / "runtime.json").write_text("{}}")
    result = ape("silverback", "cluster", "serve", *options)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert f"{folder / 'runtime.json'}, where the cluster's runtime is kept, can't be read" in result.stderr


def client_of(port: int, folder: Path) -> ClusterClient:
    headers = {"X-API-Key": (folder / "api-key").read_text()}
    return ClusterClient(base_url=f"http://127.0.0.1:{port}", headers=headers, retries=Retries(attempts=1))


def test_a_copy_made_while_it_serves_is_restored_elsewhere_and_starts_nothing(
    home: Path, project: Path, ape: Ape
) -> None:
    (project / "bots").mkdir()
    (project / "bots" / "one.py").write_text("import time\ntime.sleep(600)\n")
    folder, other, port = home / "served", home / "elsewhere", free_port()
    copy = home / "copy"
    with serving(home, "--folder", str(folder), "--port", str(port)), client_of(port, folder) as client:
        client.new_variable_group("rpc", {"TOKEN": "tops3cret"})
        client.new_credentials("registry", "ghcr.io", "me@example.com", "me", "passw0rd")
        network = {"ecosystem": "ethereum", "network": "local", "provider": "foundry"}
        client.new_bot(name="one", image=f"project:{project}#one", environment=["rpc"], **network)
        key = client.new_key("ci", "write").key
        made = ape("silverback", "cluster", "backup", str(copy), "--folder", str(folder))
        assert made.returncode == 0, made.stderr
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        for secret in (b"tops3cret", b"passw0rd", key.encode()):
            assert secret not in subprocess.run(["gunzip", "-c"], stdin=copy.open("rb"), capture_output=True).stdout
    refused = ape("silverback", "cluster", "restore", str(copy), "--folder", str(other))
    assert refused.returncode == 1
    assert "--secret-key" in refused.stderr
    assert not (other / "cluster.db").exists()
    restored = ape(
        "silverback",
        "cluster",
        "restore",
        str(copy),
        "--folder",
        str(other),
        "--secret-key",
        str(folder / "secret.key"),
    )
    assert restored.returncode == 0, restored.stderr
    again = ape("silverback", "cluster", "restore", str(copy), "--folder", str(other))
    assert again.returncode == 1
    with serving(home, "--folder", str(other), "--port", str(port)), client_of(port, other) as client:
        time.sleep(1.0)
        assert client.bots["one"].status is ResourceStatus.STOPPED
        assert client.variable_groups["rpc"].variables == ["TOKEN"]
        assert list(client.credentials) == ["registry"]
        headers = {"X-API-Key": key}
        assert httpx.get(f"http://127.0.0.1:{port}/bots", headers=headers).status_code == 200


def test_the_documented_unit_of_systemd_is_valid(tmp_path: Path) -> None:
    verify = "/usr/bin/systemd-analyze"
    if not os.access(verify, os.X_OK):
        pytest.skip("systemd isn't installed")
    unit = Path(__file__).parents[2] / "docs" / "server" / "silverback-cluster.service"
    text = unit.read_text()
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    program = command.removeprefix("ExecStart=").split()[0]
    copy = tmp_path / unit.name
    copy.write_text(text.replace(program, ape_command()))
    result = subprocess.run([verify, "verify", str(copy)], capture_output=True, text=True, check=False)
    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert not complaints, result.stderr
