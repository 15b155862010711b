"""``ape silverback cluster``: the commands, by heading of its help."""

from ape_silverback.cli.shared.group import LazyGroup

cluster = LazyGroup(
    name="cluster",
    help="""Deploy bots to a Silverback cluster and manage them.

    The cluster is chosen by `-p/--profile`, else by the `silverback:` section of ape-config.yaml, else by the
    environment (SILVERBACK_PROFILE, or SILVERBACK_CLUSTER_URI and SILVERBACK_CLUSTER_API_KEY), else by the default
    profile in ~/.silverback/profile.toml.

    Start here: `ape silverback cluster up`, then `ape silverback cluster deploy`.
    """,
    short_help="Deploy bots to a cluster and manage them",
    commands_by_section={
        "Deploy": {
            "plan": "ape_silverback.cli.cluster.plan:plan",
            "deploy": "ape_silverback.cli.cluster.deploy:deploy",
            "rollback": "ape_silverback.cli.cluster.history:rollback",
            "history": "ape_silverback.cli.cluster.history:history",
            "status": "ape_silverback.cli.cluster.status:status",
        },
        "Payment": {
            "verify": "ape_silverback.cli.cluster.verify:verify",
            "pay": "ape_silverback.cli.cluster.pay:pay",
        },
        "Inspect and change": {
            "bots": "ape_silverback.cli.cluster.bots:bots",
            "vars": "ape_silverback.cli.cluster.vars:vars_",
            "registry": "ape_silverback.cli.cluster.registry:registry",
            "info": "ape_silverback.cli.cluster.clusters:info",
            "health": "ape_silverback.cli.cluster.clusters:health",
            "nodes": "ape_silverback.cli.cluster.nodes:nodes",
            "open": "ape_silverback.cli.cluster.dashboard:open_",
        },
        "Local cluster": {
            "up": "ape_silverback.cli.cluster.server:up",
            "down": "ape_silverback.cli.cluster.server:down",
            "notify": "ape_silverback.cli.cluster.notify:notify",
        },
        "Platform": {
            "workspaces": "ape_silverback.cli.cluster.workspaces:workspaces",
            "list": "ape_silverback.cli.cluster.clusters:list_",
            "new": "ape_silverback.cli.cluster.clusters:new",
            "update": "ape_silverback.cli.cluster.clusters:update",
            "migrate": "ape_silverback.cli.cluster.clusters:migrate",
        },
    },
)
