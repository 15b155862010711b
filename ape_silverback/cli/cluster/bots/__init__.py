"""``ape silverback cluster bots``: the bots of a cluster."""

from ape_silverback.cli.shared.group import LazyGroup

HERE = "ape_silverback.cli.cluster.bots"

bots = LazyGroup(
    name="bots",
    help="List, create, update, start, stop and remove the bots of a cluster.",
    commands_by_section={
        "Inspect": {
            "list": (f"{HERE}.look:list_", "List bots"),
            "info": (f"{HERE}.look:info_", "Show bots"),
            "health": (f"{HERE}.look:health_", "Check the health of bots"),
            "logs": (f"{HERE}.logs:logs", "Show logs of bots"),
            "errors": (f"{HERE}.logs:errors", "Show errors of bots"),
            "metrics": (f"{HERE}.metrics:metrics", "Show what a bot measures"),
        },
        "Change": {
            "new": (f"{HERE}.change:new", "Create a bot"),
            "update": (f"{HERE}.change:update", "Update a bot"),
            "start": (f"{HERE}.lifecycle:start", "Start bots"),
            "stop": (f"{HERE}.lifecycle:stop", "Stop bots"),
            "remove": (f"{HERE}.lifecycle:remove", "Remove bots"),
            "move": (f"{HERE}.move:move", "Move a bot to another machine"),
        },
    },
)
