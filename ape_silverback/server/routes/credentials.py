"""Registry credentials: ``/credentials``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel

from ape_silverback.cluster.types import RegistryCredentialsInfo
from ape_silverback.server.routes import TheStore, check_room
from ape_silverback.server.routes.names import LongText, Name, Text
from ape_silverback.server.store import CredentialRecord

EXTENSIONS = ()

router = APIRouter(prefix="/credentials")


class NewCredential(BaseModel):
    """Body of ``POST /credentials``."""

    name: Name
    hostname: Text
    email: Text
    username: Text
    password: LongText


class CredentialChanges(BaseModel):
    """Body of ``PATCH /credentials/{name}``: null keeps a value."""

    hostname: Text | None = None
    email: Text | None = None
    username: Text | None = None
    password: LongText | None = None


def _found(name: str, store: TheStore) -> CredentialRecord:
    if (record := store.credential(name)) is None:
        raise HTTPException(404, f"there is no registry credential '{name}'")
    return record


Credential = Annotated[CredentialRecord, Depends(_found)]


@router.get("")
def credentials(store: TheStore) -> list[RegistryCredentialsInfo]:
    """Return the registry credentials, without passwords."""
    return [_info(one) for one in store.credentials()]


@router.post("")
def new_credential(store: TheStore, body: NewCredential) -> RegistryCredentialsInfo:
    """Add registry credentials."""
    with store.transaction():
        check_room(len(store.credentials()))
        if store.credential(body.name):
            raise HTTPException(409, f"there is already a registry credential '{body.name}'")
        store.add_credential(**body.model_dump())
        return _info(_found(body.name, store))


@router.patch("/{name}")
def update_credential(store: TheStore, one: Credential, body: CredentialChanges) -> RegistryCredentialsInfo:
    """Change registry credentials."""
    with store.transaction():
        store.change_credential(one.name, body.model_dump())
        return _info(_found(one.name, store))


@router.delete("/{name}")
def remove_credential(store: TheStore, one: Credential) -> Response:
    """Remove registry credentials that no bot uses."""
    with store.transaction():
        using = [bot.name for bot in store.bots() if bot.configuration.credential_name in (one.name, one.id)]
        if using:
            raise HTTPException(409, f"registry credential '{one.name}' is used by {', '.join(using)}")
        store.remove_credential(one.name)
    return Response()


def _info(one: CredentialRecord) -> RegistryCredentialsInfo:
    return RegistryCredentialsInfo(
        id=one.id, name=one.name, hostname=one.hostname, created=one.created, updated=one.updated
    )
