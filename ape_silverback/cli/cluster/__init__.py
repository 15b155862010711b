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
    commands_by_section={
        "Deploy": {
            "plan": ("ape_silverback.cli.cluster.plan:plan", "Show what deploy would do"),
            "deploy": ("ape_silverback.cli.cluster.deploy:deploy", "Deploy the project's bots"),
            "rollback": ("ape_silverback.cli.cluster.history:rollback", "Go back to an earlier deployment"),
            "history": ("ape_silverback.cli.cluster.history:history", "Show earlier deployments"),
            "status": ("ape_silverback.cli.cluster.status:status", "Show the cluster and its bots"),
        },
        "Payment": {
            "verify": ("ape_silverback.cli.cluster.verify:verify", "Verify the payment stream of a cluster"),
            "pay": ("ape_silverback.cli.cluster.pay:pay", "Pay for a cluster"),
        },
        "Inspect and change": {
            "bots": ("ape_silverback.cli.cluster.bots:bots", "Manage the bots of a cluster"),
            "vars": ("ape_silverback.cli.cluster.vars:vars_", "Manage variable groups"),
            "registry": ("ape_silverback.cli.cluster.registry:registry", "Manage credentials for container registries"),
            "info": ("ape_silverback.cli.cluster.clusters:info", "Show a cluster"),
            "health": ("ape_silverback.cli.cluster.clusters:health", "Check the health of a cluster"),
            "mcp": ("ape_silverback.cli.cluster.mcp:mcp", "Serve the cluster to language models"),
            "nodes": ("ape_silverback.cli.cluster.nodes:nodes", "List the machines of the cluster"),
            "keys": ("ape_silverback.cli.cluster.keys:keys", "Manage API keys of the cluster"),
            "open": ("ape_silverback.cli.cluster.dashboard:open_", "Open the dashboard in a browser"),
        },
        "Local cluster": {
            "up": ("ape_silverback.cli.cluster.server:up", "Start the local cluster"),
            "down": ("ape_silverback.cli.cluster.server:down", "Stop the local cluster and its bots"),
            "serve": ("ape_silverback.cli.cluster.serve:serve", "Serve a cluster in the foreground"),
            "backup": ("ape_silverback.cli.cluster.serve:backup", "Back up a cluster of this machine"),
            "restore": ("ape_silverback.cli.cluster.serve:restore", "Restore a cluster from a backup"),
            "notify": ("ape_silverback.cli.cluster.notify:notify", "Notifications when something breaks"),
        },
        "Platform": {
            "workspaces": ("ape_silverback.cli.cluster.workspaces:workspaces", "Manage workspaces of the platform"),
            "list": ("ape_silverback.cli.cluster.clusters:list_", "List the clusters of a workspace"),
            "new": ("ape_silverback.cli.cluster.clusters:new", "Create a cluster"),
            "update": ("ape_silverback.cli.cluster.clusters:update", "Rename a cluster"),
            "migrate": ("ape_silverback.cli.cluster.clusters:migrate", "Migrate a cluster to another version"),
        },
    },
)
