"""``ape silverback init``: write the first ``silverback:`` section of a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ape_silverback.cli.shared.options import cluster_options, connected
from ape_silverback.cli.shared.terminal import echo_text, note
from ape_silverback.plurals import plural

if TYPE_CHECKING:
    from ape_silverback.project.initial import InitialSection


@click.command()
@click.option("--from-cluster", is_flag=True, help="Describe the bots that a cluster runs.")
@click.option(
    "--from-compose",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Describe the bots that a compose file runs: images, networks, accounts, names of variables.",
)
@click.option("--print", "only_print", is_flag=True, help="Print the section instead of writing it.")
@cluster_options
def init(
    from_cluster: bool, from_compose: Path | None, only_print: bool, profile: str | None, cluster: str | None
) -> None:
    """Write the first silverback section of this project, with comments, for the bots that are found in it.

    The rest of the configuration file stays as it is. A section that is there already gets the keys that it lacks.
    Values of variables are never written.

    \b
    Examples:
        ape silverback init
        ape silverback init --from-cluster --profile production
        ape silverback init --from-compose compose.yaml
    """
    from ape_silverback.config.writer import add_section, yaml_section
    from ape_silverback.project.initial import section_of_project

    if from_cluster and from_compose is not None:
        raise click.UsageError("--from-cluster and --from-compose exclude each other.")
    if not from_cluster and (profile or cluster):
        raise click.UsageError("--profile and --cluster go with --from-cluster.")
    folder = Path.cwd()
    if from_cluster:
        section = _of_cluster(folder, profile, cluster)
    elif from_compose is not None:
        section = _of_compose(folder, from_compose)
    else:
        section = section_of_project(folder)
    for text in section.notes:
        note(text)
    if only_print:
        echo_text(yaml_section(section.entries).rstrip("\n"))
        return
    file = add_section(folder, section.entries)
    note(f"{file.name} describes {plural(len(section.bots), 'bot')}: {', '.join(section.bots)}.")
    if from_cluster:
        note("Next: `ape silverback cluster plan` shows how the project and the cluster differ.")
    else:
        note(
            "Next: `ape silverback cluster up` starts a cluster on this machine, and `ape silverback cluster deploy` "
            "deploys the bots to it."
        )


def _of_cluster(folder: Path, profile: str | None, cluster: str | None) -> InitialSection:
    from ape_silverback.project.initial import section_of_cluster

    with connected(profile, cluster) as connection:
        client = connection.client
        names = {credential.id: credential.name for credential in client.credentials.values()}
        bots = {}
        for name, bot in sorted(client.bots.items()):
            credential = bot.configuration.credential_name
            known = {"credential_name": names.get(credential, credential) if credential else None}
            bots[name] = bot.configuration.model_copy(update=known)
        groups = {name: sorted(group.variables) for name, group in client.variable_groups.items()}
        path = "/".join(connection.path) if connection.path else None
        return section_of_cluster(folder, bots, groups, profile=profile, cluster=path)


def _of_compose(folder: Path, file: Path) -> InitialSection:
    import yaml

    from ape_silverback.config.env_file import read_env_file
    from ape_silverback.project.initial import env_files_of, section_of_compose

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: not YAML: {error}") from None
    variables = {}
    for name in env_files_of(content):
        path = file.parent / name
        variables[name] = list(read_env_file(str(path))) if path.is_file() else []
    return section_of_compose(folder, content, file.name, variables)
