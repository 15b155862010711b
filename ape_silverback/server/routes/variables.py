"""Variable groups: ``/vars``."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from pydantic import BaseModel

from ape_silverback.cluster.types import VariableGroupInfo
from ape_silverback.server.routes import TheStore, check_room
from ape_silverback.server.routes.names import Changes, Name, Values
from ape_silverback.server.store import GroupRecord

EXTENSIONS = ()

router = APIRouter(prefix="/vars")


class GroupChanges(BaseModel):
    """Body of ``PATCH /vars/{id}``: null removes a variable."""

    variables: Changes


def _found(group: UUID, store: TheStore) -> GroupRecord:
    if (record := store.group(group)) is None:
        raise HTTPException(404, f"there is no variable group with the id {group}")
    return record


Group = Annotated[GroupRecord, Depends(_found)]


@router.get("")
def groups(store: TheStore) -> list[VariableGroupInfo]:
    """Return the variable groups, without values."""
    return [_info(group) for group in store.groups()]


@router.post("")
def new_group(
    store: TheStore,
    name: Annotated[Name, Query()],
    body: Values,
    group_id: Annotated[UUID | None, Query(alias="id")] = None,
) -> VariableGroupInfo:
    """Make a variable group.

    With an id that the client chose, the same request sent again returns the group that the first one made.
    """
    with store.transaction():
        if group_id is not None and (there := store.group(group_id)) is not None:
            if (there.name, there.revision, set(there.variables)) == (name, 1, set(body)):
                return _info(there)
            raise HTTPException(409, f"another variable group has the id {group_id}")
        check_room(len(store.groups()))
        if any(group.name == name for group in store.groups()):
            raise HTTPException(409, f"there is already a variable group '{name}'")
        return _info(store.add_group(name, body, group_id))


@router.patch("/{group}")
def update_group(store: TheStore, group: Group, body: GroupChanges) -> VariableGroupInfo:
    """Set and remove variables of a group."""
    with store.transaction():
        _found(group.id, store)
        store.change_group(group.id, body.variables)
        return _info(_found(group.id, store))


@router.delete("/{group}")
def remove_group(store: TheStore, group: Group) -> Response:
    """Remove a variable group that no bot uses."""
    with store.transaction():
        if users := [bot.name for bot in store.bots() if group.name in bot.configuration.environment]:
            raise HTTPException(409, f"variable group '{group.name}' is used by {', '.join(users)}")
        store.remove_group(group.id)
    return Response()


def _info(group: GroupRecord) -> VariableGroupInfo:
    return VariableGroupInfo(id=group.id, name=group.name, variables=list(group.variables), created=group.created)
