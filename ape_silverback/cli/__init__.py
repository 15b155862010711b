"""``ape silverback …``: parse, call, print. No decisions live here.

``ape`` itself imports this module, unguarded and for ``ape --help`` too, so it imports nothing but click and one module
that does the same. Commands are imported when they are used.
"""

from ape_silverback.cli.shared.group import LazyGroup

cli = LazyGroup(
    name="silverback",
    help="Deploy Silverback bots from an Ape project and manage the clusters that run them.",
    short_help="Deploy and manage Silverback bots",
    version_of="ape-silverback",
    commands_by_section={
        "Commands": {
            "init": ("ape_silverback.cli.init:init", "Write the first silverback section of a project"),
            "cluster": ("ape_silverback.cli.cluster:cluster", "Deploy bots to a cluster and manage them"),
            "build": ("ape_silverback.cli.build:build", "Build the images of the project's bots"),
            "doctor": ("ape_silverback.cli.doctor:doctor", "Find what keeps deployments from working"),
        },
        "Account": {
            "login": ("ape_silverback.cli.login:login", "Log in to the platform"),
            "logout": ("ape_silverback.cli.login:logout", "Log out of the platform"),
            "whoami": ("ape_silverback.cli.login:whoami", "Show who is logged in to the platform"),
        },
    },
)
