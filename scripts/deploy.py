"""Deploys this project's bots from Python, onto the chain that the script is connected to.

Run it with ``ape run deploy --network ethereum:local:http://127.0.0.1:8545`` once a local cluster is up.
"""

from ape import networks

from ape_silverback import Event, deploy, plan, project_bots


def main() -> None:
    """Show the plan, carry it out, and show what happens."""
    for bot in project_bots():
        wanted = bot.configuration
        print(f"{bot.name}: {wanted.ecosystem}:{wanted.network}:{wanted.provider}, account {wanted.account}")
    # The value of the variable group that ape-config.yaml names: a bot is a process of its own.
    values = {"APE_FOUNDRY_HOST": networks.active_provider.http_uri}
    made = plan(values=values)
    print(f"To do on {made.cluster}: {', '.join(f'{one.kind} {one.name}' for one in made.writes) or 'nothing'}")
    summary = deploy(plan=made, values=values, on_event=show)
    print(summary.text)


def show(event: Event) -> None:
    """Show one event, in a line."""
    print(f"  {event.name}: {event.text}")
