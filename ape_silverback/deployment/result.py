"""What became of a deployment, from its events."""

from __future__ import annotations

from dataclasses import dataclass, field

from ape_silverback.deployment.events import NOT_STARTED, Event
from ape_silverback.deployment.plan import Plan, RemoveBot, RestartBot, UpdateBot
from ape_silverback.exceptions import DeployFailed
from ape_silverback.plurals import plural


@dataclass
class DeployResult:
    """What became of a deployment.

    Attributes:
        plan: what was to be done.
        waits: whether it waits for the bots.
        outcome: name of each bot and group that an event was about → the last that happened to it.
        failures: the events of those that failed, in order.
        written: names of those that a write was done to, in order.
        error: what ended the deployment before its end.
    """

    plan: Plan
    waits: bool = True
    outcome: dict[str, Event] = field(default_factory=dict)
    failures: list[Event] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    error: str | None = None

    def add(self, event: Event) -> None:
        """Take an event."""
        if event.kind not in ("state", "built"):
            self.outcome[event.name] = event
        if event.kind == "failed":
            self.failures.append(event)
        if event.kind == "applied":
            self.written.append(event.name)

    def named(self, *kinds: str) -> list[str]:
        """Return the names of those whose last event is of some kinds."""
        return [name for name, event in self.outcome.items() if event.kind in kinds]

    @property
    def ready(self) -> list[str]:
        """The bots that run and are healthy."""
        return [name for name in self.plan.watched if name in self.named("ready")]

    @property
    def not_started(self) -> list[str]:
        """Those that nothing was done to, since it was interrupted or something else failed."""
        return [name for name in self.named("skipped") if self.outcome[name].text.startswith(NOT_STARTED)]

    @property
    def succeeded(self) -> bool:
        """Whether nothing failed and nothing was left out."""
        return self.error is None and not self.failures and not self.named("skipped")

    @property
    def text(self) -> str:
        """What was reached, in a line."""
        done = f"{len(self.ready)} of {len(self.plan.watched)} bots running and healthy on {self.plan.cluster}."
        if not self.waits:
            done = f"{plural(len(self.plan.writes), 'change')} made on {self.plan.cluster}; not waited for the bots."
        removed = [action.name for action in self.plan.of(RemoveBot) if action.name in self.named("applied")]
        return f"{done} Removed: {', '.join(removed)}." if removed else done

    @property
    def versions(self) -> str | None:
        """Which bots run with what, in a line, after a deployment that changed some and not all; else None."""
        running = {action.name for action in self.plan.of(UpdateBot, RestartBot)}
        old = [name for name in (*self.not_started, *self.named("rolled-back")) if name in running]
        new = [name for name in self.plan.watched if name in running and name not in old]
        if not old or not new:
            return None
        return f"with the change: {', '.join(new)}; as before: {', '.join(old)}"

    def check(self) -> None:
        """Return if all of it succeeded.

        Raises:
            DeployFailed: something failed or was left out; the text lists what, and what was reached.
        """
        if self.succeeded:
            return
        failed = list(dict.fromkeys(event.name for event in self.failures))
        parts = [self.error] if self.error else []
        parts += [f"{', '.join(failed)} failed"] if failed else []
        parts += [f"rolled back: {', '.join(back)}"] if (back := self.named("rolled-back")) else []
        parts += [f"not done: {', '.join(skipped)}"] if (skipped := self.named("skipped")) else []
        parts += [self.versions] if self.versions else []
        raise DeployFailed(f"{'; '.join(parts)}; {self.text}", {event.name: event.text for event in self.failures})
