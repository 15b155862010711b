"""Deploying from code: ``ape run`` scripts, ``ape console``, tests, notebooks.

It does what the commands do, with the project that is Ape's active one and the cluster that the same rules choose::

    from ape_silverback import Manner, deploy, plan, project_bots

    for bot in project_bots():
        print(bot.name, bot.image, bot.origins["image"])
    print([action.kind for action in plan(target="staging").writes])
    deploy("price-*", target="staging", manner=Manner(rollback=True), on_event=print)

Nobody is asked. What goes wrong is a ``SilverbackError``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ape_silverback.deployment.apply import USUAL_MANNER, Event, Manner
from ape_silverback.deployment.plan import NO_WISHES, Plan, Wishes
from ape_silverback.deployment.summary import Summary
from ape_silverback.desired import DesiredBot, Options
from ape_silverback.exceptions import DeployError, NoClusterError
from ape_silverback.images.build import Build
from ape_silverback.project import project_folder
from ape_silverback.setting import Asked, opened
from ape_silverback.stream.clusters import trust_connection

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ape_silverback.cluster.client import ClusterClient


class Asking(TypedDict, total=False):
    """What every function here takes by name."""

    target: str
    """Target of the section."""

    profile: str
    """Profile of the cluster, in place of what else would choose one."""

    cluster: str
    """The cluster of the platform, as ``WORKSPACE/NAME``."""

    client: ClusterClient
    """Client of the cluster, in place of a profile."""

    options: Options
    """Network, account, tag and so on of all bots, for this run."""

    settings: Sequence[str]
    """Keys of the section for this run, as ``bots.NAME.tag=v2``."""

    env_files: Sequence[Path]
    """Files with values of variables, which win over the environment."""

    values: Mapping[str, str]
    """Values of variables, which win over the files."""


def project_bots(*bots: str, **asked: Unpack[Asking]) -> tuple[DesiredBot, ...]:
    """Give the project's bots as they would be deployed: all of them, or those of some names or globs.

    Each says in ``origins`` where its values come from. The cluster is only asked of what kind it is; without one, what
    depends on it is as for a local cluster.

    Raises:
        ResolutionError: with every problem of every bot, a line each.
    """
    wanted = _asked(bots, asked)
    try:
        with opened(wanted) as setting:
            return setting.resolve().bots
    except NoClusterError:
        return wanted.resolve(wanted.read(), None).bots


def plan(*bots: str, wishes: Wishes = NO_WISHES, **asked: Unpack[Asking]) -> Plan:
    """Say what ``deploy`` would do. Changes nothing.

    Args:
        bots: names or globs; all of the project's bots when there are none.
        wishes: what is asked of the plan: to prune, to push variables, to restart.
        asked: see ``Asking``.

    Raises:
        ResolutionError: the project's bots can't be resolved.
        DeployError: it can't be done, with every reason, a line each.
        ClusterError: a request failed.
    """
    with opened(_asked(bots, asked)) as setting:
        return setting.plan(setting.resolve(), wishes)


def deploy(
    *bots: str,
    plan: Plan | None = None,
    wishes: Wishes = NO_WISHES,
    manner: Manner = USUAL_MANNER,
    build: Build | None = None,
    verify: bool = True,
    on_event: Callable[[Event], None] | None = None,
    **asked: Unpack[Asking],
) -> Summary:
    """Make the cluster have the project's bots, and wait until they run and are healthy.

    Args:
        bots: names or globs; all of the project's bots when there are none.
        plan: what to do, in place of a new plan; refused when the cluster has moved since it was made.
        wishes: as for ``plan``.
        manner: how: whether it waits, rolls back, restarts some after the others.
        build: how to build the images of the bots that are deployed before anything is written; None to build none.
        verify: verify the payment stream of a cluster of the platform first.
        on_event: called with each event while it happens.
        asked: see ``Asking``.

    Raises:
        DeployFailed: something failed or was left out; the rest is done.
        StreamError: the payment stream of the cluster isn't to be trusted; nothing was changed.
        BuildError: an image couldn't be made; nothing was changed.
        SilverbackError: as for ``plan``; nothing was changed.
    """
    with _begun(bots, plan, wishes, manner, build, verify, asked) as (made, events):
        summary = Summary(made, manner.wait)
        for event in events:
            summary.add(event)
            if on_event is not None:
                on_event(event)
    summary.check()
    return summary


def deploy_events(
    *bots: str,
    plan: Plan | None = None,
    wishes: Wishes = NO_WISHES,
    manner: Manner = USUAL_MANNER,
    build: Build | None = None,
    verify: bool = True,
    **asked: Unpack[Asking],
) -> Generator[Event, None, None]:
    """Deploy as ``deploy`` does, and give each event while it happens.

    Nothing happens before the first is taken, and nothing more is begun once no more are. A bot that fails is an event.
    """
    with _begun(bots, plan, wishes, manner, build, verify, asked) as (_, events):
        yield from events


def _asked(bots: tuple[str, ...], asked: Asking) -> Asked:
    return Asked(project_folder(), bots, **asked)


@contextmanager
def _begun(
    bots: tuple[str, ...],
    plan: Plan | None,
    wishes: Wishes,
    manner: Manner,
    build: Build | None,
    verify: bool,
    asked: Asking,
) -> Iterator[tuple[Plan, Iterator[Event]]]:
    """Give what is done, and the events of doing it, for as long as the right to deploy is held."""
    if plan is not None and bots:
        raise DeployError("a plan that was made says which bots: name none with it")
    with opened(_asked(bots, asked)) as setting, setting.deployer.lock():
        trust_connection(setting.connection, setting.stream, skip=not verify)
        images: Sequence[DesiredBot] = ()
        if plan is None:
            desired = setting.resolve()
            plan = setting.plan(desired, wishes)
            images = setting.to_build(plan, desired) if build is not None else ()
        else:
            setting.deployer.check(plan)
        with closing(setting.carry_out(plan, manner, images=images, build=build)) as events:
            yield plan, events
