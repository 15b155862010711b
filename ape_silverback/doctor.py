"""What keeps deployments from working on this machine: each part is looked at by itself, and each error has a cure.

A check that rests on one with an error is skipped, and says so: its own error would only be that one again. Changes
nothing, and signs nothing. What an error can't name without a secret stays unsaid.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from ape_silverback.durations import span_text
from ape_silverback.exceptions import BuildError, NoClusterError, ResolutionError, SilverbackError
from ape_silverback.files import silverback_folder
from ape_silverback.version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from ape_silverback.cluster.choice import Choice
    from ape_silverback.config.reader import SectionReading
    from ape_silverback.connect import Connection
    from ape_silverback.project.desired import DesiredState

DISTRIBUTION = "ape-silverback"

PATIENCE = 5.0
"""Seconds that a cluster, a node or an engine gets to answer."""

CLOCK_ERROR = 30.0
"""Seconds that the clocks of this machine and the cluster may be apart: tokens and certificates have an end."""

LOGIN_ENDS_SOON = timedelta(days=1)

SECRET_NAMES = ("api-key", "session", "server.json")
SECRET_SUFFIXES = (".db", ".key")

Outcome = Literal["ok", "warning", "error", "skipped"]

CURES = {
    "configuration": "correct it in the configuration file; docs/ape-config.example.yaml explains every key",
    "bots": "correct it in the configuration file; `ape silverback cluster deploy --dry-run` shows each value's origin",
    "profile": "correct ~/.silverback/profile.toml, or choose another profile: --profile, or `profile:` in the section",
    "login": "ape silverback login",
    "cluster": "start the cluster, or correct its address or key in the profile",
}
"""What helps with the errors of a check that have no cure of their own."""


class Finding(BaseModel):
    """One thing that was looked at: in `doctor`."""

    model_config = ConfigDict(frozen=True)

    check: str
    """`versions`, `configuration`, `bots`, `profile`, `login`, `cluster`, `clock`, `chain`, `engine` or `files`."""
    outcome: Outcome
    """`warning` for what may matter; `error` for what keeps something from working; `skipped` without a check."""
    text: str
    """What was found, or why it wasn't checked."""
    cure: str | None = None
    """What to do about it."""


def ok(check: str, text: str) -> Finding:
    """Return a finding of something that is as it should be."""
    return Finding(check=check, outcome="ok", text=text)


def warning(check: str, text: str, cure: str) -> Finding:
    """Return a finding of something that may matter."""
    return Finding(check=check, outcome="warning", text=text, cure=cure)


def error(check: str, text: str, cure: str | None = None) -> Finding:
    """Return a finding of something that keeps something from working."""
    return Finding(check=check, outcome="error", text=text, cure=cure)


def skipped(check: str, reason: str) -> Finding:
    """Return a finding of something that wasn't checked."""
    return Finding(check=check, outcome="skipped", text=f"not checked: {reason}")


def examine(folder: Path, profile: str | None = None, cluster: str | None = None) -> list[Finding]:
    """Check all that deployments need; return what was found, in the order of the checks.

    Args:
        folder: the project's folder, which has to be Ape's active project.
        profile: profile of the cluster, in place of what else would choose one.
        cluster: the cluster of the platform, as ``WORKSPACE/NAME``.
    """
    examination = _Examination(folder, profile, cluster)
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]], tuple[str, ...]], ...] = (
        ("versions", examination.versions, ()),
        ("configuration", examination.configuration, ()),
        ("bots", examination.bots, ("configuration",)),
        ("profile", examination.profile_file, ("configuration",)),
        ("login", examination.login, ("profile",)),
        ("cluster", examination.cluster_answers, ("login",)),
        ("clock", examination.clock, ()),
        ("chain", examination.chains, ("bots",)),
        ("engine", examination.engine, ()),
        ("files", examination.files, ()),
    )
    findings: list[Finding] = []
    lacking = examination.lacking
    for name, check, needs in checks:
        if reason := next((lacking[one] for one in needs if one in lacking), None):
            findings.append(skipped(name, reason))
            lacking[name] = reason
            continue
        found = list(_guarded(name, check))
        findings += found
        if any(one.outcome == "error" and one.check == name for one in found):
            lacking.setdefault(name, f"`{name}` has an error")
    return findings


def report(findings: Sequence[Finding]) -> str:
    """Return a text in Markdown for a bug report. Paths of the user are shortened; values of variables aren't in it."""
    plugins = sorted(
        f"{one.name} {one.version}" for one in metadata.distributions() if re.match(r"ape[-_]", one.name or "")
    )
    variables = sorted(name for name in os.environ if name.startswith(("APE_", "SILVERBACK_")))
    lines = [
        f"- ape-silverback {__version__}, eth-ape {_version_of('eth-ape')}, silverback {_version_of('silverback')}",
        f"- Python {platform.python_version()} ({sys.implementation.name}) on {platform.platform()}",
        f"- Plugins: {', '.join(plugins) or 'none'}",
        f"- Variables that are set: {', '.join(variables) or 'none'}",
        "",
        "| check | | found |",
        "| --- | --- | --- |",
    ]
    for one in findings:
        text = re.sub(r"\s+", " ", one.text).replace("|", "\\|")
        lines.append(f"| {one.check} | {one.outcome} | {text} |")
    return "\n".join(lines).replace(os.path.expanduser("~"), "~")  # noqa: PTH111 - Path.home() fails without a home


@dataclass(frozen=True)
class _Examination:
    """The machine, the project and the cluster; what a check found out is at hand for the next ones.

    Attributes:
        lacking: check → why those that rest on it can't be made.
        dates: what the cluster says the time is, once it has answered.
    """

    folder: Path
    profile: str | None
    cluster: str | None
    desired: list[DesiredState] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    dates: list[str | None] = field(default_factory=list)

    def versions(self) -> Iterator[Finding]:
        """Compare what is installed with what this package needs."""
        problems = []
        for requirement in _requirements():
            installed = _version_of(requirement.name)
            if installed is None:
                problems.append(f"{requirement.name} isn't installed")
            elif not requirement.specifier.contains(installed, prereleases=True):
                problems.append(f"{requirement.name} {installed} doesn't fit; {requirement} is needed")
        if problems:
            cure = "pip install --upgrade --force-reinstall ape-silverback"
            yield error("versions", "; ".join(problems), cure)
        else:
            ours = f"ape-silverback {__version__}, eth-ape {_version_of('eth-ape')}"
            yield ok("versions", f"{ours}, Python {platform.python_version()}")
        [sdk] = [one for one in _requirements("server") if one.name == "silverback"]
        install = "pip install 'ape-silverback[server]'"
        if (installed := _version_of("silverback")) is None:
            yield warning("versions", "the bot SDK isn't installed: bots can't run on this machine", install)
        elif not sdk.specifier.contains(installed, prereleases=True):
            yield warning("versions", f"silverback {installed} doesn't fit; {sdk.specifier} is needed", install)
        else:
            yield ok("versions", f"bot SDK silverback {installed}")

    @cached_property
    def reading(self) -> SectionReading:
        """The section."""
        from ape_silverback.config.reader import read_section

        return read_section(self.folder)

    def configuration(self) -> Iterator[Finding]:
        """Read the section."""
        file = self.reading.file
        yield ok("configuration", f"{file.name} can be read" if file else "no configuration file; defaults hold")
        for text in self.reading.warnings:
            yield warning("configuration", text, "correct it in the configuration file")

    def bots(self) -> Iterator[Finding]:
        """Resolve the project's bots: their ecosystems, networks, providers and accounts have to be known here."""
        from ape_silverback.project.resolver import resolve

        try:
            desired = resolve(self.reading, self.folder, kind=None)
        except ResolutionError as problem:
            for text in _grouped(str(problem).splitlines()):
                yield error("bots", text, _bot_cure(text) or CURES["bots"])
            return
        self.desired.append(desired)
        for text in _grouped(desired.warnings):
            yield warning("bots", text, _bot_cure(text) or "see `ape silverback cluster deploy --dry-run`")
        yield ok("bots", f"{len(desired.bots)} resolved: {', '.join(bot.name for bot in desired.bots)}")

    @cached_property
    def choice(self) -> Choice:
        """The profile that was chosen."""
        from ape_silverback.cluster.choice import choose_profile

        origin = f"silverback.profile in {self.reading.place_of('profile')}"
        return choose_profile(self.profile, self.reading.section.profile, origin)

    def profile_file(self) -> Iterator[Finding]:
        """Choose the profile."""
        import httpx

        from ape_silverback.cluster.choice import danger_of
        from ape_silverback.cluster.http_errors import public_url

        try:
            choice = self.choice
        except NoClusterError as problem:
            self.lacking["profile"], _, cure = str(problem).partition(". ")
            yield warning("profile", self.lacking["profile"], cure)
            return
        danger = danger_of(choice)
        host = public_url(httpx.URL(choice.profile.host)).rstrip("/")
        yield ok("profile", f"'{choice.name}' ({choice.origin}): {host}")
        if danger:
            yield warning("profile", danger, "use https")

    def login(self) -> Iterator[Finding]:
        """Check the login of a profile of the platform."""
        from ape_silverback.cluster.auth.tokens import LOG_IN, read_login
        from ape_silverback.cluster.settings import PlatformProfile

        if not isinstance(profile := self.choice.profile, PlatformProfile):
            yield ok("login", f"profile '{self.choice.name}' uses an API key")
            return
        login = read_login(profile.auth)
        left = None if login.expires is None else login.expires - time.time()
        if left is not None and left <= 0 and login.refresh_token is None:
            yield error("login", f"the login of {login.user} has ended", LOG_IN)
        elif left is not None and left < LOGIN_ENDS_SOON.total_seconds() and login.refresh_token is None:
            yield warning("login", f"the login of {login.user} ends in {span_text(int(left))}", LOG_IN)
        else:
            renewed = ", renewed when it ends" if login.refresh_token else ""
            yield ok("login", f"logged in as {login.user}{renewed}")

    def cluster_answers(self) -> Iterator[Finding]:
        """Ask the cluster for its version and health."""
        from ape_silverback.connect import connected

        with connected(self.profile, self.cluster, self.reading, patience=PATIENCE) as connection:
            self.dates.append(connection.client.call("GET", "/openapi.json").headers.get("Date"))
            yield ok("cluster", f"{connection.label} answers; version {connection.client.version}")
            if connection.kind() == "local" and connection.client.version != __version__:
                text = f"the local cluster runs version {connection.client.version}, this is {__version__}"
                yield warning("cluster", text, "ape silverback cluster down, then up")
            if not connection.client.health.cluster.healthy:
                yield warning("cluster", "the cluster isn't healthy", "see `ape silverback cluster health`")
            yield from self._stream_chain(connection)

    def clock(self) -> Iterator[Finding]:
        """Compare the clocks of this machine and the cluster."""
        if not self.dates:
            yield skipped("clock", self.lacking.get("cluster", "the cluster didn't answer"))
            return
        try:
            there = parsedate_to_datetime(self.dates[0] or "").timestamp()
        except (TypeError, ValueError, OverflowError):
            yield skipped("clock", "the cluster doesn't tell the time")
            return
        apart = abs(time.time() - there)
        if apart > CLOCK_ERROR:
            text = f"the clocks of this machine and the cluster are {span_text(int(apart))} apart"
            yield warning("clock", text, "synchronise the clock (NTP): logins and certificates depend on it")
        else:
            yield ok("clock", "the clock agrees with the cluster's")

    def _stream_chain(self, connection: Connection) -> Iterator[Finding]:
        """Check the chain on which the cluster is paid for."""
        from ape_silverback.stream.chain import network_with
        from ape_silverback.stream.claims import PlatformCluster, read_claims

        if connection.platform is None:
            return
        [claim] = read_claims(connection.platform, [PlatformCluster(*connection.record())])
        if claim is not None:
            yield from _chain(network_with(claim.stream.chain_id), claim.stream.chain_id, "of the payment stream")

    def chains(self) -> Iterator[Finding]:
        """Ask the nodes of the bots' networks for their chain ids."""
        networks: dict[str, list[str]] = {}
        for bot in (bot for desired in self.desired for bot in desired.bots):
            given = bot.configuration
            networks.setdefault(f"{given.ecosystem}:{given.network}:{given.provider}", []).append(bot.name)
        for choice, names in networks.items():
            yield from _chain(choice, None, f"of {', '.join(names)}")

    def engine(self) -> Iterator[Finding]:
        """Find a container engine that answers."""
        from ape_silverback.images.engine import Engine

        needed = "only `build`, `deploy --build` and clusters that run containers need one"
        try:
            engine = Engine.find()
        except BuildError as problem:
            yield warning("engine", str(problem), f"install podman or docker; {needed}")
            return
        try:
            done = subprocess.run(
                [engine.program, "ps", "--quiet"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            yield warning("engine", f"{engine.name} doesn't answer", f"start it; {needed}")
            return
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            yield warning("engine", f"{engine.name} is installed, but can't be used: {reason}", f"start it; {needed}")
        else:
            yield ok("engine", f"{engine.name} can be used")

    def files(self) -> Iterator[Finding]:
        """Find files with secrets that others can read."""
        open_ones = [path for path in _secret_files(silverback_folder()) if path.stat().st_mode & 0o077]
        for path in open_ones:
            mode = stat.filemode(path.stat().st_mode)
            yield error("files", f"others can read {path} ({mode}), which holds a secret", f"chmod 600 {path}")
        if not open_ones:
            yield ok("files", f"only you can read the secrets in {silverback_folder()}")


def _guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Make a check; an error that it meets is what it found."""
    from ape.exceptions import ApeException

    from ape_silverback.exceptions import Unauthorized

    try:
        yield from check()
    except Unauthorized as problem:
        yield error(name, str(problem), "correct the key in the profile, or run `ape silverback login`")
    except SilverbackError as problem:
        yield from (error(name, line, CURES.get(name)) for line in str(problem).splitlines())
    except ApeException as problem:
        yield error(name, str(problem) or type(problem).__name__, CURES.get(name))
    except Exception as problem:  # noqa: BLE001 - the other checks go on; a text of a library may hold a secret
        yield error(name, f"couldn't be checked: {type(problem).__name__}", "report it with `doctor --report`")


def _grouped(lines: Iterable[str]) -> list[str]:
    """Return lines as ``BOT: TEXT`` with those of one text as one, as ``BOT, BOT: TEXT``."""
    names: dict[str, list[str]] = {}
    for line in lines:
        name, is_one, text = line.partition(": ")
        if is_one and " " not in name:
            names.setdefault(text, []).append(name)
        else:
            names[line] = []
    return [f"{', '.join(bots)}: {text}" if bots else text for text, bots in names.items()]


def _bot_cure(text: str) -> str | None:
    """Return how to get the plugin or the account that a text names; None if it names none."""
    if plugin := re.search(r"plugin 'ape-([\w-]+)'", text):
        return f"correct the name, or run `ape plugins install {plugin[1]}`"
    if account := re.search(r"no account '([\w-]+)'", text):
        return f"correct the alias, or run `ape accounts import {account[1]}` if the bot runs on this machine"
    return None


def _chain(choice: str, wanted: int | None, whose: str) -> Iterator[Finding]:
    """Ask the node of a network for its chain id, without starting one."""
    from ape.api import SubprocessProvider
    from ape.exceptions import ApeException, ProviderError, ProviderNotFoundError
    from ape.logging import LogLevel, logger
    from ape.utils.basemodel import ManagerAccessMixin

    from ape_silverback.apepay.rpc import HttpNode, RpcRequest, results_of

    cure = "set the URL of a node in ape-config.yaml, or the key that the provider needs in the environment"
    try:
        provider = ManagerAccessMixin.network_manager.get_provider_from_choice(choice)
        if isinstance(provider, SubprocessProvider) and provider.network.is_local:
            # Only when it connects it finds out where its node is, as from APE_FOUNDRY_HOST.
            provider.allow_start = False
            with suppress(ProviderError), logger.at_level(LogLevel.ERROR):
                provider.connect()
        uri = getattr(provider, "http_uri", None)
        # A development chain has any chain id.
        expected = wanted or (None if provider.network.is_dev else provider.network.chain_id)
    except (ApeException, OSError, ValueError) as problem:
        missing = isinstance(problem, ProviderNotFoundError)
        named = f"correct the name, or install the plugin: `ape plugins install {choice.rpartition(':')[2]}`"
        yield error("chain", f"{choice} ({whose}): {problem}", named if missing else cure)
        return
    if not isinstance(uri, str) or not uri.startswith("http"):
        yield ok("chain", f"{choice} ({whose}): the provider has no address to ask, or starts a node by itself")
        return
    with HttpNode(uri, timeout=PATIENCE, whole=PATIENCE, pauses=()) as node:
        try:
            [answer] = results_of(node, RpcRequest("eth_chainId"))
            found = int(str(answer), 16)
        except (SilverbackError, ValueError) as problem:
            yield error("chain", f"{choice} ({whose}): {problem}", cure)
            return
    if expected is not None and found != expected:
        yield error("chain", f"{choice} ({whose}) is chain {found}, expected {expected}", cure)
    else:
        yield ok("chain", f"{choice} ({whose}) is chain {found}")


def _secret_files(folder: Path) -> Iterator[Path]:
    """Return the files that hold keys, logins or signed payments; a bot's own files aren't among them."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        is_secret = path.name in SECRET_NAMES or path.suffix in SECRET_SUFFIXES
        is_secret |= path.suffix in (".toml", ".json") and path.parent in (folder, folder / "payments")
        if is_secret and path.is_file() and not path.is_symlink():
            yield path


def _requirements(extra: str = "") -> list[Requirement]:
    """Return what this package needs, with an extra or without one."""
    from packaging.requirements import Requirement

    found = []
    for text in metadata.requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if of_extra == bool(extra) and (requirement.marker is None or requirement.marker.evaluate({"extra": extra})):
            found.append(requirement)
    return found


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
