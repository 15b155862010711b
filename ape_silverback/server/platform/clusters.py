"""Life of a paid cluster: a table of which state may follow which, and what serves each cluster that is paid for."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fastapi import FastAPI

from ape_silverback.cluster.types import ClusterConfiguration, ResourceStatus, StreamInfo
from ape_silverback.concurrency import map_threads
from ape_silverback.files import write_private
from ape_silverback.server.alerts import alerts_of
from ape_silverback.server.app import make_app
from ape_silverback.server.lifecycle import ImpossibleTransition
from ape_silverback.server.notify import NotifySettings
from ape_silverback.server.platform.store import ClusterRecord, PlatformStore
from ape_silverback.server.runtimes.loading import RuntimeChoice, write_choice
from ape_silverback.server.serving import end_bots, supervisor_of
from ape_silverback.server.supervisor import Supervisor
from ape_silverback.version import __version__

CREATED, PROVISIONING, RUNNING = ResourceStatus.CREATED, ResourceStatus.PROVISIONING, ResourceStatus.RUNNING
DEPROVISIONING, REMOVED = ResourceStatus.DEPROVISIONING, ResourceStatus.REMOVED

TRANSITIONS: Mapping[ResourceStatus, frozenset[ResourceStatus]] = {
    CREATED: frozenset({PROVISIONING}),
    PROVISIONING: frozenset({RUNNING, DEPROVISIONING}),
    RUNNING: frozenset({DEPROVISIONING}),
    DEPROVISIONING: frozenset({REMOVED}),
    REMOVED: frozenset(),
}
"""State → the states that may follow it. Payment makes a cluster PROVISIONING, its end makes it DEPROVISIONING."""

PAID = (PROVISIONING, RUNNING)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Payment:
    """What a stream pays for.

    Attributes:
        product: code of the cluster and its configuration.
        expires: end of it, in seconds since 1970.
    """

    stream: StreamInfo
    product: bytes
    expires: int


@dataclass(frozen=True)
class Served:
    """What serves a cluster."""

    supervisor: Supervisor
    app: FastAPI

    def begin(self) -> None:
        """Start watching its bots and what they record, and sending notices."""
        for service in self.app.state.services:
            service.begin()

    def end(self) -> None:
        """Stop its bots, and looking after them. Nothing can be asked of it any more."""
        for service in reversed(self.app.state.services):
            service.end()
        self.supervisor.runtime.close()
        self.supervisor.store.close()


class Clusters:
    """The clusters of the platform. All but ``app_of`` is for one thread at a time.

    Args:
        store: where they are kept.
        folder: where each paid one has a folder.
        host: address of the platform.
        session: what opens the platform, and so each of its clusters.
        runtime: where the bots of all of them run.
        notify: who is told when something breaks on one of them.
    """

    def __init__(
        self,
        store: PlatformStore,
        folder: Path,
        host: str,
        session: str,
        runtime: RuntimeChoice = RuntimeChoice(),  # noqa: B008 - frozen
        notify: NotifySettings = NotifySettings(),  # noqa: B008 - frozen
    ) -> None:
        self.store = store
        self.folder = folder
        self.host = host
        self.session = session
        self.runtime = runtime
        self.notify = notify
        self._served: dict[uuid.UUID, Served] = {}

    def begin(self) -> None:
        """Adopt the clusters of the last server, and finish what it was at."""
        for record in self.store.clusters():
            if record.status in PAID:
                self._serve(record)
            elif record.status is DEPROVISIONING:
                self._clear(record)

    def end(self) -> None:
        """Stop the bots of all clusters. The next server starts those again that ran."""
        map_threads(Served.end, self._served.values())
        self._served.clear()

    def app_of(self, cluster: uuid.UUID) -> FastAPI | None:
        """Return the application of a cluster; None for one that isn't served."""
        served = self._served.get(cluster)
        return served.app if served else None

    def provision(self, record: ClusterRecord, payment: Payment) -> None:
        """Provide a cluster with what was paid for.

        Raises:
            ImpossibleTransition: it was paid for before.
        """
        self._check(record, PROVISIONING)
        self.store.set_paid(
            record.info.id,
            PROVISIONING,
            stream=payment.stream,
            product=payment.product,
            configuration=ClusterConfiguration.from_product_code(payment.product),
            expires=payment.expires,
            version=__version__,
        )
        self._serve(self._reload(record))

    def resume(self, record: ClusterRecord) -> None:
        """Go on providing a cluster that is paid for, where that failed."""
        if record.info.id not in self._served:
            self._serve(record)

    def deprovision(self, record: ClusterRecord, reason: str) -> None:
        """Take a cluster away, with its bots and all that it keeps.

        Raises:
            ImpossibleTransition: it isn't one that is paid for.
        """
        self._enter(record, DEPROVISIONING)
        log.info("cluster %s: %s", record.info.slug, reason)
        self._clear(self._reload(record))

    def _serve(self, record: ClusterRecord) -> None:
        folder = self._folder(record)
        api_key = _api_key(folder / "api-key")
        if self.runtime != RuntimeChoice():
            write_choice(folder, replace(self.runtime, cluster=str(record.info.id)))
        supervisor = supervisor_of(folder, lambda: self._address(record), api_key)

        def expires() -> float | None:
            now = self.store.cluster(record.info.id)
            return None if now is None else now.expires

        app = make_app(
            supervisor,
            api_key,
            session=self.session,
            configuration=record.info.configuration,
            alerts=alerts_of(self.notify, supervisor, folder, self._address(record), os.environ, expires),
            expires=expires,
        )
        served = Served(supervisor, app)
        served.begin()
        self._served[record.info.id] = served
        if record.status is PROVISIONING:
            self._enter(record, RUNNING)
            log.info("cluster %s: paid for by stream %s, runs", record.info.slug, record.stream)

    def _clear(self, record: ClusterRecord) -> None:
        if served := self._served.pop(record.info.id, None):
            _remove_bots(served.supervisor)
            served.end()
        # What a request began meanwhile, or a server before this one.
        end_bots(self._folder(record), grace=5.0, discard=True)
        shutil.rmtree(self._folder(record), ignore_errors=True)
        self._enter(record, REMOVED)

    def _folder(self, record: ClusterRecord) -> Path:
        return self.folder / str(record.info.id)

    def _address(self, record: ClusterRecord) -> str:
        now = self._reload(record)  # slugs can change
        workspace = self.store.workspace(now.workspace)
        assert workspace is not None  # noqa: S101 - one with clusters can't be removed
        return f"{self.host}/c/{workspace.slug}/{now.info.slug}"

    def _enter(self, record: ClusterRecord, status: ResourceStatus) -> None:
        self._check(record, status)
        self.store.set_status(record.info.id, status)

    def _check(self, record: ClusterRecord, status: ResourceStatus) -> None:
        if status not in TRANSITIONS[record.status]:
            raise ImpossibleTransition(f"cluster '{record.info.slug}' can't go from {record.status!r} to {status!r}")

    def _reload(self, record: ClusterRecord) -> ClusterRecord:
        found = self.store.cluster(record.info.id)
        assert found is not None  # noqa: S101 - only removed ones are ever deleted
        return found


def _remove_bots(supervisor: Supervisor) -> None:
    def remove(bot: uuid.UUID) -> None:
        record = supervisor.store.bot(bot)
        if record is not None:
            with suppress(LookupError):  # a request removes it too
                supervisor.remove(record)

    map_threads(remove, [bot.id for bot in supervisor.store.bots()])


def _api_key(file: Path) -> str:
    """Return a cluster's key, which stays: its bots outlive the server."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    return file.read_text(encoding="utf8")
