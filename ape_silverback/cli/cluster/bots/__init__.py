"""``ape silverback cluster bots``: the bots of a cluster."""

from ape_silverback.cli.shared.group import LazyGroup

HERE = "ape_silverback.cli.cluster.bots"

bots = LazyGroup(
    name="bots",
    help="List, create, update, start, stop and remove the bots of a cluster.",
    short_help="Manage the bots of a cluster",
    commands_by_section={
        "Inspect": {
            "list": f"{HERE}.look:list_",
            "info": f"{HERE}.look:info_",
            "health": f"{HERE}.look:health_",
            "logs": f"{HERE}.logs:logs",
            "errors": f"{HERE}.logs:errors",
            "metrics": f"{HERE}.metrics:metrics",
        },
        "Change": {
            "new": f"{HERE}.change:new",
            "update": f"{HERE}.change:update",
            "start": f"{HERE}.lifecycle:start",
            "stop": f"{HERE}.lifecycle:stop",
            "remove": f"{HERE}.lifecycle:remove",
            "move": f"{HERE}.move:move",
        },
    },
)
