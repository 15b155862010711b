"""Deploying from code: ``ape run`` scripts, ``ape console``, tests, notebooks.

It does what the commands do, for Ape's active project and the cluster that the same rules choose::

    from ape_silverback import ApplyOptions, deploy, plan, project_bots

    for bot in project_bots():
        print(bot.name, bot.configuration.image, bot.origins["image"])
    print([action.kind for action in plan(target="staging").writes])
    deploy("price-*", target="staging", apply_options=ApplyOptions(rollback=True), on_event=print)

Nothing is asked. What goes wrong is a ``SilverbackError``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ape_silverback.deployment.apply import DEFAULT_APPLY_OPTIONS, ApplyOptions
from ape_silverback.deployment.events import Event
from ape_silverback.deployment.plan import DEFAULT_PLAN_OPTIONS, Plan, PlanOptions
from ape_silverback.deployment.result import DeployResult
from ape_silverback.deployment.session import DeployRequest, open_session
from ape_silverback.exceptions import DeployError, NoClusterError
from ape_silverback.images.build import Build
from ape_silverback.project.desired import DesiredBot, Overrides
from ape_silverback.project.discovery import project_folder

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ape_silverback.cluster.client import ClusterClient
    from ape_silverback.config.env_file import Commands


class RequestFields(TypedDict, total=False):
    """What every function here takes by name."""

    target: str | None
    """Target of the section."""

    profile: str
    """Profile of the cluster, in place of what else would choose one."""

    cluster: str
    """The cluster of the platform, as ``WORKSPACE/NAME``."""

    client: ClusterClient
    """Client of the cluster, in place of a profile."""

    overrides: Overrides
    """Network, account, tag and so on of all bots, for this run."""

    settings: Sequence[str]
    """Keys of the section for this run, as ``bots.NAME.tag=v2``."""

    env_files: Sequence[Path]
    """Files with values of variables, which win over the environment."""

    values: Mapping[str, str]
    """Values of variables, which win over the files."""

    commands: Commands
    """Runs the commands that env files have for values. Without it they aren't allowed."""


def project_bots(*bots: str, **request: Unpack[RequestFields]) -> tuple[DesiredBot, ...]:
    """Return the project's bots as they would be deployed: all of them, or those with some names or globs.

    ``origins`` of each has where its values come from. The cluster is only asked of what kind it is; without one, what
    depends on it is as for a local cluster.

    Raises:
        ResolutionError: with every problem of every bot, a line each.
    """
    wanted = _request(bots, request)
    try:
        with open_session(wanted) as session:
            return session.resolve().bots
    except NoClusterError:
        return wanted.resolve(wanted.read(), None).bots


def plan(*bots: str, plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS, **request: Unpack[RequestFields]) -> Plan:
    """Return what ``deploy`` would do. Changes nothing.

    Args:
        bots: names or globs; all of the project's bots when there are none.
        plan_options: what the plan may do: prune, push variables, restart, adopt.
        request: see ``RequestFields``.

    Raises:
        ResolutionError: the project's bots can't be resolved.
        DeployError: it can't be done, with every reason, a line each.
        ClusterError: a request failed.
    """
    with open_session(_request(bots, request)) as session:
        return session.plan_project(plan_options)[1]


def deploy(
    *bots: str,
    plan: Plan | None = None,
    plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
    apply_options: ApplyOptions = DEFAULT_APPLY_OPTIONS,
    build: Build | None = None,
    verify: bool = True,
    on_event: Callable[[Event], None] | None = None,
    **request: Unpack[RequestFields],
) -> DeployResult:
    """Deploy the project's bots, and wait until they run and are healthy.

    Args:
        bots: names or globs; all of the project's bots when there are none.
        plan: what to do, in place of a new plan; refused when the cluster has moved since it was made.
        plan_options: as for ``plan``.
        apply_options: how: whether it waits, rolls back, restarts some after the others.
        build: how to build the images of the bots that are deployed before anything is written; None to build none.
        verify: verify the payment stream of a cluster of the platform first.
        on_event: called with each event while it happens.
        request: see ``RequestFields``.

    Raises:
        DeployFailed: something failed or was left out; the rest is done.
        StreamError: the payment stream of the cluster isn't to be trusted; nothing was changed.
        BuildError: an image couldn't be made; nothing was changed.
        SilverbackError: as for ``plan``; nothing was changed.
    """
    with _begun(bots, plan, plan_options, apply_options, build, verify, request) as (made, events):
        summary = DeployResult(made, apply_options.wait)
        for event in events:
            summary.add(event)
            if on_event is not None:
                on_event(event)
    summary.check()
    return summary


def deploy_events(
    *bots: str,
    plan: Plan | None = None,
    plan_options: PlanOptions = DEFAULT_PLAN_OPTIONS,
    apply_options: ApplyOptions = DEFAULT_APPLY_OPTIONS,
    build: Build | None = None,
    verify: bool = True,
    **request: Unpack[RequestFields],
) -> Generator[Event, None, None]:
    """Deploy as ``deploy`` does, and yield each event while it happens.

    Nothing happens before the first is taken, and nothing more is begun once no more are. A bot that fails is an event.
    """
    with _begun(bots, plan, plan_options, apply_options, build, verify, request) as (_, events):
        yield from events


def _request(bots: tuple[str, ...], request: RequestFields) -> DeployRequest:
    return DeployRequest(project_folder(), bots, **request)


@contextmanager
def _begun(
    bots: tuple[str, ...],
    plan: Plan | None,
    plan_options: PlanOptions,
    apply_options: ApplyOptions,
    build: Build | None,
    verify: bool,
    request: RequestFields,
) -> Iterator[tuple[Plan, Iterator[Event]]]:
    """Return the plan, and the events of applying it, for as long as the right to deploy is held."""
    if plan is not None and bots:
        raise DeployError("a plan has its bots: name none with it")
    if plan is not None and plan_options != DEFAULT_PLAN_OPTIONS:
        raise DeployError("a plan is applied as it is: pass plan_options to plan()")
    if plan is not None:
        request = {**request, "target": plan.target}
    with open_session(_request(bots, request)) as session, session.deployer.lock():
        session.open_for_writing(verify)
        images: Sequence[DesiredBot] = ()
        if plan is None:
            desired, plan = session.plan_project(plan_options)
            images = session.to_build(plan, desired) if build is not None else ()
        else:
            session.deployer.check(plan)
        with closing(session.apply(plan, apply_options, images=images, build=build)) as events:
            yield plan, events
