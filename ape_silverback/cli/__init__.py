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
            "init": "ape_silverback.cli.init:init",
            "cluster": "ape_silverback.cli.cluster:cluster",
            "build": "ape_silverback.cli.build:build",
            "doctor": "ape_silverback.cli.doctor:doctor",
        },
        "Account": {
            "login": "ape_silverback.cli.login:login",
            "logout": "ape_silverback.cli.login:logout",
            "whoami": "ape_silverback.cli.login:whoami",
        },
    },
)
