"""Named API keys: ``/keys``. Only a key that may change things may see or change them."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel

from ape_silverback.cluster.types import KeyInfo, KeyRole, NewKeyInfo
from ape_silverback.server.keys import Keys
from ape_silverback.server.routes.names import MOST_THINGS, Name

EXTENSIONS = ("keys",)

router = APIRouter(prefix="/keys")


class NewKey(BaseModel):
    """Body of ``POST /keys``."""

    name: Name
    role: KeyRole = "read"


def _keys(request: Request) -> Keys:
    if request.state.role != "write":
        raise HTTPException(403, "a key with the role 'read' can't list or change keys")
    found: Keys = request.app.state.keys
    return found


@router.get("")
def keys(request: Request) -> list[KeyInfo]:
    """Return the named keys, without what opens the cluster."""
    return [KeyInfo(**asdict(key)) for key in _keys(request).all()]


@router.post("")
def new_key(request: Request, body: NewKey) -> NewKeyInfo:
    """Make a key. Its secret is in this answer only."""
    there = _keys(request)
    if len(there.all()) >= MOST_THINGS:
        raise HTTPException(
            409, f"there are already {MOST_THINGS} keys, the most that a cluster holds; revoke one first"
        )
    key, secret = there.add(body.name, body.role)
    return NewKeyInfo(**asdict(key), key=secret)


@router.delete("/{key}")
def revoke_key(request: Request, key: UUID) -> Response:
    """Revoke the key."""
    if not _keys(request).revoke(key):
        raise HTTPException(404, f"there is no key with the id {key}")
    return Response()
