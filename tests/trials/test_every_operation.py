"""Random requests to every operation of the API, made from the document that the server serves of itself."""

from __future__ import annotations

import json
import random
import string
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.server.machine import KEY, serving_cluster

pytestmark = pytest.mark.trial

CASES = 150
"""Requests to each operation."""

NASTY = [
    "",
    " ",
    "a" * 5000,
    "\x00",
    "ä/ö?#%",
    "../../etc/passwd",
    "-1",
    "null",
    "\u202e",
    "1e309",
    "'; DROP TABLE bots",
]


class Maker:
    """Makes values of a schema, most of them valid."""

    def __init__(self, document: dict[str, Any], seed: int) -> None:
        self.document = document
        self.random = random.Random(seed)

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        schema = self.resolved(schema)
        if self.random.random() < 0.12:
            return self.random.choice([None, True, -1, 10**30, 1.5, [], {}, *NASTY])
        if "anyOf" in schema:
            return self.value(self.random.choice(schema["anyOf"]), depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        match schema.get("type"):
            case "string":
                if schema.get("format") == "uuid":
                    return str(uuid.UUID(int=self.random.getrandbits(128)))
                if schema.get("format") == "date-time":
                    return self.random.choice(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z"])
                letters = string.ascii_letters + "-_.:/"
                return "".join(self.random.choices(letters, k=self.random.randint(1, 12)))
            case "integer":
                return self.random.choice([0, 1, 20, -1, 2**63])
            case "number":
                return self.random.choice([0, 0.5, 60, -1, 1e300])
            case "boolean":
                return self.random.random() < 0.5
            case "array":
                count = self.random.randint(0, 3)
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count if depth < 4 else 0)]
            case "object":
                properties = schema.get("properties", {})
                required = schema.get("required", [])
                made = {
                    name: self.value(one, depth + 1)
                    for name, one in properties.items()
                    if name in required or self.random.random() < 0.5
                }
                if isinstance(schema.get("additionalProperties"), dict) and depth < 4:
                    for _ in range(self.random.randint(0, 3)):
                        name = "".join(self.random.choices(string.ascii_uppercase + "_", k=4))
                        made[name] = self.value(schema["additionalProperties"], depth + 1)
                return made
        return self.random.choice([None, "x", 1])


def test_no_request_is_answered_with_anything_but_what_the_document_promises(tmp_path: Path) -> None:
    findings: set[str] = set()
    operations = cases = 0
    with serving_cluster(tmp_path) as cluster, httpx.Client(base_url=cluster.url, timeout=30) as http:
        document = http.get("/openapi.json").json()
        maker = Maker(document, seed=20)
        headers = {"X-API-Key": KEY}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                operations += 1
                for _ in range(CASES):
                    cases += 1
                    finding = _one(http, maker, cluster, path, method, operation, headers)
                    if finding:
                        findings.add(f"{method.upper()} {path}: {finding}")
                if method == "delete":
                    _seed(http, headers)
        health = http.get("/healthz").json()
    print(f"{operations} operations, {cases} cases, {len(findings)} findings")
    assert not findings, "\n".join(sorted(findings))
    assert health == {"ok": True}


def _seed(http: httpx.Client, headers: dict[str, str]) -> None:
    body = {"name": "seed", "image": "a/b:1", "ecosystem": "ethereum", "network": "local", "provider": "foundry"}
    http.post("/bots", json=body, headers=headers)
    http.post("/vars", params={"name": "seed"}, json={"A": "b"}, headers=headers)


def _one(
    http: httpx.Client,
    maker: Maker,
    cluster: Any,
    path: str,
    method: str,
    operation: dict[str, Any],
    headers: dict[str, str],
) -> str | None:
    """Send one request and return what is wrong with its answer; None for nothing."""
    query, filled = {}, path
    for parameter in operation.get("parameters", ()):
        value = maker.value(parameter["schema"])
        if parameter["in"] == "path":
            known = [str(bot.id) for bot in cluster.store.bots()] if parameter["name"] == "bot" else []
            value = maker.random.choice(known) if known and maker.random.random() < 0.6 else str(value) or "x"
            escaped = quote(value.replace("/", "-"), safe="")  # with a slash it would be another path
            filled = filled.replace(f"{{{parameter['name']}}}", "x" if escaped in ("", ".", "..") else escaped)
        elif parameter["in"] == "query" and (parameter.get("required") or maker.random.random() < 0.5):
            query[parameter["name"]] = False if parameter["name"] == "follow" else value
    arguments: dict[str, Any] = {"params": query, "headers": headers}
    if "requestBody" in operation:
        [(kind, content)] = list(operation["requestBody"]["content"].items())[:1]
        body = maker.value(content["schema"])
        if kind == "application/json":
            arguments["content"] = json.dumps(body).encode()
            arguments["headers"] = {**headers, "Content-Type": kind}
        else:
            arguments["data"] = {str(key): str(value) for key, value in body.items()} if isinstance(body, dict) else {}
    try:
        answer = http.request(method.upper(), filled, **arguments)
    except (httpx.InvalidURL, ValueError):
        return None  # no client could send it
    except httpx.TransportError as error:
        return f"no answer: {type(error).__name__}"
    if answer.status_code >= 500:
        return f"status {answer.status_code}: {answer.text[:200]}"
    if str(answer.status_code) not in operation["responses"]:
        return f"status {answer.status_code} isn't in the document"
    if answer.status_code >= 400 and "detail" not in answer.json():
        return f"status {answer.status_code} without a detail"
    return None
