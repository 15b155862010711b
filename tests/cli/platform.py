"""A model of the platform, which proxies one cluster as the platform does: for commands, by the contract of its API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.server import Reply, Request, Server, answer, serving
from tests.server.machine import KEY, Cluster

TOKEN = "the-token"
OWNER = "44444444-4444-4444-8444-444444444444"
MANAGER = "0x7A82f8Ba0D3D8e1AA7D6F8d0d9eF1C7DA1c1b0a2"
VERSIONS = ["0.9.0", "0.9.1"]
NOW = "2026-01-01T00:00:00Z"


@dataclass
class Platform:
    """What a user of the platform has there.

    Attributes:
        workspaces: by id, as the platform answers them.
        clusters: by id, each with the id of its workspace under ``_of``.
        streams: by id of a cluster.
        managers: StreamManager by chain id.
        written: what was asked of the clusters that isn't reading.
        behind: the cluster that all of its clusters are.
        down: slugs of the clusters that it can't reach.
    """

    workspaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    managers: dict[int, str] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    behind: Cluster | None = None
    down: set[str] = field(default_factory=set)
    changes: list[str] = field(default_factory=list)
    migrations: list[tuple[str, str | None]] = field(default_factory=list)

    def add_workspace(self, slug: str, name: str) -> str:
        """Add a workspace, give its id."""
        one = str(uuid.uuid4())
        self.workspaces[one] = {"id": one, "owner_id": OWNER, "name": name, "slug": slug, "created": NOW}
        return one

    def add_cluster(self, workspace: str, slug: str, name: str, **more: Any) -> str:
        """Add a cluster that isn't paid for, unless it is said; give its id."""
        one = str(uuid.uuid4())
        self.clusters[one] = {
            "_of": workspace,
            "id": one,
            "version": None,
            "configuration": None,
            "name": name,
            "slug": slug,
            "expiration": None,
            "created": NOW,
            "status": 0,
            "last_updated": NOW,
            **more,
        }
        return one

    def behave(self, request: Request) -> Reply:
        """Answer a request."""
        if f"session={TOKEN}" not in request.headers.get("Cookie", ""):
            return answer({"detail": "not logged in"}, 401)
        if request.path.startswith("/c/"):
            return self.proxy(request)
        if request.method != "GET":
            self.changes.append(request.line)
        try:
            return self.answer(request)
        except KeyError:
            return answer({"detail": "not found"}, 404)

    def proxy(self, request: Request) -> Reply:
        """Answer for a cluster, with the platform's own key for it."""
        workspace, cluster, path = request.path.removeprefix("/c/").split("/", 2)
        if request.method != "GET":
            self.written.append(request.line)
        mine = {one["slug"]: one["id"] for one in self.workspaces.values()}
        if self.behind is None or not any(
            one["slug"] == cluster and one["_of"] == mine.get(workspace) for one in self.clusters.values()
        ):
            return answer({"detail": "not found"}, 404)
        if cluster in self.down:
            return answer({"detail": "the cluster doesn't answer"}, 502)
        headers = {"X-API-Key": KEY, "Content-Type": request.headers.get("Content-Type", "")}
        found = httpx.request(
            request.method,
            f"{self.behind.url}/{path}",
            params=request.query,
            headers=headers,
            content=request.body,
        )
        return Reply(found.status_code, found.content, {"Content-Type": found.headers.get("Content-Type", "")})

    def answer(self, request: Request) -> Reply:
        """Answer for the platform itself."""
        form = request.form()
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["users", one]:
                return answer({"username": "Ada"} if one == OWNER else {})
            case "GET", ["streams", "manager", chain_id]:
                return answer(self.managers[int(chain_id)])
            case "GET", ["versions"]:
                return answer(VERSIONS)
            case "GET", ["workspaces"]:
                return answer(list(self.workspaces.values()))
            case "POST", ["workspaces"]:
                slug = form.get("slug") or form.get("name", "bots").lower()
                if any(one["slug"] == slug for one in self.workspaces.values()):
                    return answer({"detail": f"slug '{slug}' is taken"}, 409)
                return answer(self.workspaces[self.add_workspace(slug, form.get("name", slug))])
            case "PATCH", ["workspaces", one]:
                self.workspaces[one] |= form
                return answer(self.workspaces[one])
            case "DELETE", ["workspaces", one]:
                if any(cluster["_of"] == one for cluster in self.clusters.values()):
                    return answer({"detail": "the workspace holds clusters"}, 409)
                del self.workspaces[one]
                return Reply()
            case _, ["clusters", *rest]:
                return self.answer_clusters(request.method, request.query["workspace"], rest, form)
        raise KeyError

    def answer_clusters(self, method: str, workspace: str, rest: list[str], form: dict[str, str]) -> Reply:
        """Answer for the clusters of a workspace."""
        mine = {one: self.clusters[one] for one in self.clusters if self.clusters[one]["_of"] == workspace}
        match method, rest:
            case "GET", []:
                return answer(list(mine.values()))
            case "POST", []:
                slug = form.get("slug") or form.get("name", "cluster").lower()
                if any(one["slug"] == slug for one in mine.values()):
                    return answer({"detail": f"slug '{slug}' is taken"}, 409)
                return answer(self.clusters[self.add_cluster(workspace, slug, form.get("name", slug))])
            case "PATCH", [one]:
                mine[one] |= form
                return answer(mine[one])
            case "PUT", [one]:
                self.migrations.append((mine[one]["slug"], form.get("version")))
                return Reply()
            case "GET", [one, "stream"]:
                return answer(self.streams.get(mine[one]["id"]))
        raise KeyError


def log_in(home: Path, platform: str, cluster: str) -> None:
    """Write the profile of a platform, a login for it, and the profile ``direct`` of a cluster."""
    folder = home / ".silverback"
    folder.mkdir()
    tokens = {"access_token": TOKEN, "token_type": "Bearer", "expires_at": int(time.time()) + 3600}
    login = folder / "default.json"
    login.write_text(json.dumps({"userinfo": {"sub": OWNER, "preferred_username": "Ada"}, "tokens": tokens}))
    login.chmod(0o600)
    profile = folder / "profile.toml"
    profile.write_text(
        f"""
default-profile = "default"

[auth.default]
host = "{platform}"
client-id = "native"

[profile.default]
auth = "default"
host = "{platform}"
allow-insecure = true
default-workspace = "space"

[profile.direct]
host = "{cluster}"
api-key = "{KEY}"
allow-insecure = true
"""
    )
    profile.chmod(0o600)


@contextmanager
def serving_platform(platform: Platform, home: Path) -> Iterator[Server]:
    """Serve it for as long as the context lasts, to a user who is logged in."""
    with serving(platform.behave) as server:
        log_in(home, server.url, platform.behind.url if platform.behind else server.url)
        yield server
