"""The plan: what has to happen so that a cluster has what the project wants."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from ape_silverback.cluster.types import BotConfiguration, ResourceStatus
from ape_silverback.deployment.plan import (
    Change,
    CreateBot,
    CreateGroup,
    KeepBot,
    Orphan,
    Plan,
    PlanOptions,
    RemoveBot,
    RemoveGroup,
    RestartBot,
    StartBot,
    UpdateBot,
    UpdateGroup,
    Usage,
)
from ape_silverback.deployment.planner import make_plan
from ape_silverback.deployment.planning.scope import fingerprint
from ape_silverback.deployment.planning.takeovers import without_taken
from ape_silverback.deployment.state import (
    Code,
    LiveBot,
    LiveGroup,
    LiveState,
    LocalState,
    PendingRestart,
    RecordedBot,
    RecordedGroup,
    RecordedState,
)
from ape_silverback.exceptions import DeployError
from ape_silverback.project.desired import DesiredBot, DesiredGroup, DesiredState

SPACE = UUID("12345678-1234-4234-9234-123456789abc")


def bot(name: str = "a", **fields: Any) -> DesiredBot:
    values = {"image": "registry.example/app-a:1", "ecosystem": "ethereum", "network": "sepolia", "provider": "node"}
    others = {
        name: fields.pop(name)
        for name in ("protect", "share_account", "renamed_from", "family", "id")
        if name in fields
    }
    configuration = BotConfiguration.model_validate(values | fields)
    origins = dict.fromkeys(BotConfiguration.model_fields, "here")
    return DesiredBot(name, "here", name, configuration, origins, **others)


def desired(*bots: DesiredBot, groups: dict[str, tuple[str, ...]] | None = None) -> DesiredState:
    declared = tuple(DesiredGroup(name, names, "variables") for name, names in (groups or {}).items())
    return DesiredState("app", Path("/app"), bots, declared)


def there(like: DesiredBot, status: ResourceStatus = ResourceStatus.RUNNING, **fields: Any) -> LiveBot:
    return LiveBot(uuid5(SPACE, like.name), like.name, status, like.configuration.model_copy(update=fields))


def live(*bots: LiveBot, groups: dict[str, set[str]] | None = None, **fields: Any) -> LiveState:
    known = {name: LiveGroup(uuid5(SPACE, name), name, frozenset(names)) for name, names in (groups or {}).items()}
    return LiveState("test", {bot.name: bot for bot in bots}, known, **fields)


def recorded(
    *bots: DesiredBot, groups: dict[str, tuple[str, ...]] | None = None, last: int = 1, **fields: Any
) -> RecordedState:
    """The record of a deployment that left these bots and groups."""
    left = tuple(
        RecordedBot(name=one.name, id=uuid5(SPACE, one.name), configuration=one.configuration, protect=one.protect)
        for one in bots
    )
    made = {name: RecordedGroup(variables=names) for name, names in (groups or {}).items()}
    return RecordedState(left, made, last=last, **fields)


def having(*names: str) -> LocalState:
    """A machine that has values of these variables."""
    return LocalState({name: f"key:{name}" for name in names})


ADOPT = PlanOptions(adopt=True)


def test_a_bot_that_is_not_there_is_created_with_its_whole_configuration() -> None:
    plan = make_plan(desired(bot()), live())
    assert plan.actions == (CreateBot(name="a", configuration=bot().configuration),)


def test_a_bot_that_is_as_it_should_be_is_kept() -> None:
    plan = make_plan(desired(bot()), live(there(bot())))
    assert plan.actions == (KeepBot(id=uuid5(SPACE, "a"), name="a"),)
    assert not plan.writes


def test_a_changed_field_is_told_with_old_and_new_and_a_running_bot_is_restarted() -> None:
    plan = make_plan(desired(bot(network="mainnet")), live(there(bot())))
    assert plan.actions == (
        UpdateBot(
            id=uuid5(SPACE, "a"),
            name="a",
            changes=(Change(field="network", old="sepolia", new="mainnet", by="unknown"),),
            runs=True,
            restart=True,
        ),
    )


def test_a_stopped_bot_that_changes_needs_no_restart() -> None:
    [action] = make_plan(desired(bot(network="mainnet")), live(there(bot(), ResourceStatus.STOPPED))).actions
    assert isinstance(action, UpdateBot)
    assert not action.restart


def test_a_stopped_bot_that_is_as_it_should_be_is_started() -> None:
    plan = make_plan(desired(bot()), live(there(bot(), ResourceStatus.STOPPED)))
    assert plan.actions == (StartBot(id=uuid5(SPACE, "a"), name="a"),)


@pytest.mark.parametrize("status", [ResourceStatus.CREATED, ResourceStatus.PROVISIONING, ResourceStatus.STARTUP])
def test_a_bot_on_its_way_isnt_started_again(status: ResourceStatus) -> None:
    assert not make_plan(desired(bot()), live(there(bot(), status))).writes


def test_a_bot_that_is_about_to_stop_is_started_once_it_has() -> None:
    stopping = live(there(bot(), ResourceStatus.SHUTDOWN))
    assert make_plan(desired(bot()), stopping).actions == (StartBot(id=uuid5(SPACE, "a"), name="a", stopping=True),)
    [action] = make_plan(desired(bot(network="mainnet")), stopping).of(UpdateBot)
    assert (action.runs, action.stopping) == (False, True)


def test_taking_an_account_away_is_a_change_to_nothing() -> None:
    [action] = make_plan(desired(bot(account=None)), live(there(bot(), account="deployer"))).actions
    assert isinstance(action, UpdateBot)
    assert action.changes == (Change(field="account", old="deployer", new=None, by="unknown"),)


def test_the_order_of_groups_matters_since_the_later_wins() -> None:
    groups = {"one": {"A"}, "two": {"A"}}
    state = live(there(bot(), environment=("two", "one")), groups=groups)
    [action] = make_plan(desired(bot(environment=("one", "two"))), state).actions
    assert isinstance(action, UpdateBot)


def test_a_declared_group_that_is_not_there_is_created_before_the_bots() -> None:
    plan = make_plan(desired(bot(environment=("rpc",)), groups={"rpc": ("KEY",)}), live(), local=having("KEY"))
    assert plan.actions[0] == CreateGroup(name="rpc", variables=("KEY",))
    assert isinstance(plan.actions[1], CreateBot)


def test_a_group_with_other_variables_is_updated_and_its_running_bots_restarted() -> None:
    wanted = bot(environment=("rpc",))
    state = live(there(wanted), groups={"rpc": {"OLD"}})
    known = recorded(wanted, groups={"rpc": ("OLD",)})
    plan = make_plan(desired(wanted, groups={"rpc": ("NEW",)}), state, known, having("NEW"))
    assert plan.actions == (
        UpdateGroup(id=uuid5(SPACE, "rpc"), name="rpc", add=("NEW",), remove=("OLD",)),
        RestartBot(id=uuid5(SPACE, "a"), name="a", reason="variables of rpc change"),
    )
    assert not plan.strangers


def test_a_group_of_the_cluster_that_the_project_does_not_declare_is_used_as_it_is() -> None:
    plan = make_plan(desired(bot(environment=("shared",))), live(groups={"shared": {"X"}}))
    assert [action.kind for action in plan.actions] == ["create"]


def test_all_problems_of_all_bots_are_told_at_once() -> None:
    wanted = desired(
        bot("a", environment=("nowhere",)),
        bot("b", credential_name="hub"),
        bot("c", environment=("rpc",)),
        groups={"rpc": ("KEY",)},
    )
    with pytest.raises(DeployError) as error:
        make_plan(wanted, live(credentials=frozenset({"other"})))
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "a: variable group 'nowhere'" in lines[0]
    assert "b: the cluster has no registry credential 'hub'" in lines[1]
    assert "other" in lines[1]
    assert "variable 'KEY' of group 'rpc'" in lines[2]


def test_a_heartbeat_whose_variable_no_group_of_the_bot_has_is_refused_before_anything_is_sent() -> None:
    beating = bot(heartbeat="BEAT_URL", environment=("watch",))
    announced = frozenset({"heartbeat"})
    refused = "a: no variable group of the bot has 'BEAT_URL', which its heartbeat"
    for groups in ({}, {"other": {"BEAT_URL"}}):
        with pytest.raises(DeployError, match=refused):
            make_plan(desired(beating), live(groups={"watch": {"URL"}, **groups}, extensions=announced))
    assert make_plan(desired(beating), live(groups={"watch": {"BEAT_URL"}}, extensions=announced)).writes
    declared = desired(beating, groups={"watch": ("BEAT_URL",)})
    assert make_plan(declared, live(extensions=announced), local=having("BEAT_URL")).writes
    assert make_plan(desired(beating), live(groups={"watch": {"URL"}})).writes, "a cluster that sends no heartbeats"


def test_bots_of_the_cluster_that_are_not_in_the_project_are_left_alone() -> None:
    plan = make_plan(desired(bot("a")), live(there(bot("a")), there(bot("stranger"))))
    assert [action.name for action in plan.actions] == ["a"]


def test_what_only_earlier_deployments_made_is_removed_when_it_is_asked_for() -> None:
    state = live(there(bot("a")), there(bot("b")), there(bot("stranger")), groups={"rpc": {"X"}, "other": {"X"}})
    known = recorded(bot("b"), bot("gone"), groups={"rpc": ("X",)})
    plan = make_plan(desired(bot("a")), state, known)
    assert not plan.writes
    assert plan.orphans == (Orphan(kind="bot", name="b"), Orphan(kind="group", name="rpc"))
    assert plan.differs
    plan = make_plan(desired(bot("a")), state, known, plan_options=PlanOptions(prune=True))
    assert plan.writes == (
        RemoveBot(id=uuid5(SPACE, "b"), name="b"),
        RemoveGroup(id=uuid5(SPACE, "rpc"), name="rpc"),
    )
    assert ([one.name for one in plan.bots], [one.name for one in plan.leaving]) == ([], ["b"])


def test_a_protected_bot_is_shown_to_be_removed_and_the_plan_is_refused() -> None:
    known = recorded(bot("b", protect=True))
    plan = make_plan(desired(bot("a")), live(there(bot("b"))), known, plan_options=PlanOptions(prune=True))
    assert RemoveBot(id=uuid5(SPACE, "b"), name="b", protected=True) in plan.actions
    assert "bot 'b' is protected" in plan.refused[0]
    assert not make_plan(desired(bot("a")), live(there(bot("b"))), known).refused


def test_a_group_that_a_strange_bot_uses_is_not_removed() -> None:
    state = live(there(bot("stranger", environment=("rpc",))), groups={"rpc": {"X"}})
    known = recorded(groups={"rpc": ("X",)})
    with pytest.raises(DeployError, match="'rpc' can't be removed: stranger of the cluster uses it"):
        make_plan(desired(bot("a")), state, known, plan_options=PlanOptions(prune=True))


def test_a_renamed_bot_is_changed_and_not_made_anew() -> None:
    plan = make_plan(desired(bot("new", renamed_from=("old",))), live(there(bot("old"))))
    [action] = plan.actions
    assert isinstance(action, UpdateBot)
    assert (action.id, action.old, action.new) == (uuid5(SPACE, "old"), {"name": "old"}, {"name": "new"})
    again = make_plan(desired(bot("new", renamed_from=("old",))), live(there(bot("new"))))
    assert not again.writes


@pytest.mark.parametrize(
    ("bots", "says"),
    [
        ((bot("a"), bot("a")), "two bots are called 'a'"),
        ((bot("a", renamed_from=("b",)), bot("b")), "renamed-from 'b', which is a bot of the project"),
        ((bot("c", renamed_from=("b",)), bot("d", renamed_from=("b",))), "two bots are renamed-from 'b'"),
    ],
)
def test_names_that_clash_are_refused(bots: tuple[DesiredBot, ...], says: str) -> None:
    with pytest.raises(DeployError, match=says):
        make_plan(desired(*bots), live(there(bot("b"))))


def test_a_restart_that_is_owed_is_done_and_one_that_isnt_wanted_is_told() -> None:
    pending = {uuid5(SPACE, "a"): PendingRestart(reason="it was changed without a restart")}
    known = recorded(bot(), pending_restarts=pending)
    plan = make_plan(desired(bot()), live(there(bot())), known)
    assert plan.writes == (RestartBot(id=uuid5(SPACE, "a"), name="a", reason="it was changed without a restart"),)
    left = make_plan(desired(bot()), live(there(bot())), known, plan_options=PlanOptions(restart=False))
    assert left.actions == (KeepBot(id=uuid5(SPACE, "a"), name="a", owes="it was changed without a restart"),)


def test_a_bot_that_needs_nothing_is_restarted_when_it_is_forced() -> None:
    state = live(there(bot("a")), there(bot("b"), ResourceStatus.STOPPED))
    plan = make_plan(desired(bot("a"), bot("b")), state, plan_options=PlanOptions(force=True))
    assert [action.kind for action in plan.actions] == ["restart", "start"]


def test_values_of_variables_that_are_there_are_sent_when_it_is_asked_for() -> None:
    wanted = desired(bot(environment=("rpc",)), groups={"rpc": ("X", "Y")})
    state = live(there(bot(environment=("rpc",))), groups={"rpc": {"X", "Z"}})
    plan = make_plan(wanted, state, local=having("X", "Y"), plan_options=PlanOptions(push_variables=True, adopt=True))
    assert plan.actions[0] == UpdateGroup(
        id=uuid5(SPACE, "rpc"), name="rpc", add=("Y",), push=("X",), remove=("Z",), adopts=True
    )
    assert plan.needs == {"X", "Y"}
    assert not [line for line in plan.unknown if "values" in line]
    with pytest.raises(DeployError, match="variable 'X' of group 'rpc'"):
        make_plan(wanted, state, local=having("Y"), plan_options=PlanOptions(push_variables=True))


def test_more_bots_than_are_paid_for_is_a_warning() -> None:
    state = live(there(bot("a")), limit=2, network_limit=1)
    known = recorded(bot("a"))
    assert not make_plan(desired(bot("a"), bot("b")), state, known).warnings
    [warning] = make_plan(desired(bot("a"), bot("b"), bot("c")), state, known).warnings
    assert warning.startswith("3 bots would be on the cluster, which is paid for 2")


def test_a_plan_tells_what_is_used_then_of_what_is_paid_for() -> None:
    state = live(there(bot("a")), there(bot("other", network="sepolia")), limit=5, network_limit=3)
    usage = make_plan(
        desired(bot("a", network="holesky"), bot("b", network="sepolia")), state, recorded(bot("a"))
    ).usage
    assert usage == Usage(bots=3, bots_paid=5, networks=("ethereum:holesky", "ethereum:sepolia"), networks_paid=3)
    assert make_plan(desired(bot("a")), live(there(bot("a")))).usage is None


def test_a_fingerprint_tells_whether_what_a_plan_looked_at_has_moved() -> None:
    wanted = desired(bot("a", environment=("rpc",)))
    state = live(there(bot("a", environment=("rpc",))), groups={"rpc": {"X"}, "other": {"X"}})
    plan = make_plan(wanted, state)
    same = live(there(bot("a", environment=("rpc",))), there(bot("z")), groups={"rpc": {"X"}, "other": {"Y"}})
    assert fingerprint(same, plan.looked_at) == plan.state
    for moved in (
        live(there(bot("a", environment=("rpc",), image="x/y:2")), groups={"rpc": {"X"}}),
        live(there(bot("a", environment=("rpc",)), ResourceStatus.STOPPED), groups={"rpc": {"X"}}),
        live(there(bot("a", environment=("rpc",))), groups={"rpc": {"X", "Y"}}),
        live(there(bot("a", environment=("rpc",)))),
        live(groups={"rpc": {"X"}}),
    ):
        assert fingerprint(moved, plan.looked_at) != plan.state


def test_code_that_changed_since_a_bot_started_restarts_it() -> None:
    started = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    running = LiveBot(uuid5(SPACE, "a"), "a", ResourceStatus.RUNNING, bot().configuration, started)

    def planned(digest: str, modified: datetime, before: str | None = "old") -> Plan:
        known = recorded(bot())
        known = RecordedState((known.bots[0].model_copy(update={"code": before}),), last=1)
        return make_plan(desired(bot()), live(running), known, LocalState(code={"a": Code(digest, modified)}))

    later, sooner = started + timedelta(minutes=1), started - timedelta(minutes=1)
    assert [one.reason for one in planned("new", later).of(RestartBot)] == ["code changed"]
    assert planned("old", later).of(KeepBot), "written again, with the same content"
    assert planned("new", sooner).of(KeepBot), "restarted by hand since"
    assert planned("new", later, before=None).of(RestartBot)
    assert planned("new", later).bots[0].code == "new"


def test_a_tag_that_was_moved_restarts_the_bot() -> None:
    known = recorded(bot())
    known = RecordedState((known.bots[0].model_copy(update={"digest": "sha256:1"}),), last=1)
    image = bot().configuration.image
    moved = make_plan(desired(bot()), live(there(bot())), known, LocalState(digests={image: "sha256:2"}))
    assert [one.reason for one in moved.of(RestartBot)] == [f"the tag of {image} was moved"]
    same = make_plan(desired(bot()), live(there(bot())), known, LocalState(digests={image: "sha256:1"}))
    assert (same.writes, same.unknown) == ((), ())


def test_pruning_with_bots_selected_is_refused() -> None:
    state = replace(desired(bot("a")), selected=("a",), names=frozenset({"a", "b"}))
    with pytest.raises(DeployError, match="pruning looks at the whole project"):
        make_plan(
            state,
            live(there(bot("a")), there(bot("b"))),
            recorded(bot("a"), bot("b")),
            plan_options=PlanOptions(prune=True),
        )


# Signers


def test_two_bots_of_the_project_with_one_account_on_one_network_are_refused() -> None:
    one, two = bot("a", account="me"), bot("b", account="me")
    with pytest.raises(
        DeployError, match=r"a, b: they sign with one account, 'me' \(here\), on ethereum:sepolia"
    ) as told:
        make_plan(desired(one, two), live())
    assert "set `share-account: true` for a, b" in str(told.value)
    agreed = [replace(each, share_account=True) for each in (one, two)]
    assert len(make_plan(desired(*agreed), live()).writes) == 2
    with pytest.raises(DeployError, match=r"set `share-account: true` for b$"):
        make_plan(desired(agreed[0], two), live())
    make_plan(desired(one, bot("b", account="me", network="mainnet")), live())
    make_plan(desired(one, bot("b", account="you")), live())


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (ResourceStatus.RUNNING, True),
        (ResourceStatus.SHUTDOWN, True),
        (None, True),
        (ResourceStatus.STOPPED, False),
    ],
)
def test_a_bot_whose_account_another_one_of_the_cluster_uses_is_refused_while_that_runs(
    status: ResourceStatus | None, refused: bool
) -> None:
    other = replace(there(bot("other", account="me")), status=status)
    if refused:
        with pytest.raises(DeployError, match=r"a, other \(on the cluster\): .* set `share-account: true` for a$"):
            make_plan(desired(bot(account="me")), live(other))
    else:
        make_plan(desired(bot(account="me")), live(other))
    make_plan(desired(bot(account="me", share_account=True)), live(other))


def test_a_bot_that_goes_on_under_another_name_shares_its_account_with_no_one() -> None:
    before = bot("old", account="me")
    plan = make_plan(desired(bot("a", account="me", renamed_from=("old",))), live(there(before)), recorded(before))
    assert [type(action) for action in plan.actions] == [UpdateBot]


def test_an_account_that_another_bot_gives_up_is_used_once_that_bot_has_stopped() -> None:
    before = bot("a", account="me"), bot("b", account="you")
    wanted = bot("a", account="you"), bot("b", account="me"), bot("c")
    known = LocalState(keyfiles={"me": "aa", "also-me": "aa"})
    plan = make_plan(desired(*wanted), live(*map(there, before)), recorded(*before), known)
    after = {action.name: action.after for action in plan.bot_actions}
    a, b = (uuid5(SPACE, name) for name in "ab")
    assert after == {"a": (b,), "b": (a,), "c": ()}
    new = make_plan(desired(bot("a"), bot("c", account="also-me")), live(there(before[0])), recorded(before[0]), known)
    assert new.of(CreateBot)[0].after == (a,)
    stopped = make_plan(desired(*wanted), live(*(there(one, ResourceStatus.STOPPED) for one in before)))
    assert not any(action.after for action in stopped.bot_actions)
    with pytest.raises(DeployError, match="c: takes over account 'me' of a, which would go on running with it"):
        make_plan(
            desired(bot("a"), bot("c", account="me")),
            live(there(before[0])),
            recorded(before[0]),
            plan_options=PlanOptions(restart=False),
        )


def test_a_saved_plan_notices_a_signer_that_came_since() -> None:
    plan = make_plan(desired(bot(account="me")), live(), local=LocalState(keyfiles={"me": "aa", "also-me": "aa"}))

    def is_still_right(*others: LiveBot) -> bool:
        return fingerprint(live(*others), plan.looked_at) == plan.state

    assert is_still_right(there(bot("other", account="you")))
    assert is_still_right(there(bot("other", account="me"), ResourceStatus.STOPPED))
    assert not is_still_right(there(bot("other", account="me")))
    assert not is_still_right(there(bot("other", account="also-me")))
    assert Plan.model_validate_json(plan.model_dump_json()).looked_at == plan.looked_at


def test_a_plugin_of_an_account_that_the_image_lacks_is_warned_of_when_the_bot_starts() -> None:
    known = LocalState(missing_plugins={"a": "ape-ledger"})
    signing = bot(account="me")
    [warning] = make_plan(desired(signing), live(), recorded(signing), known).warnings
    assert warning.startswith("a: account 'me' needs ape-ledger, which the requirements of the bot's image don't name")
    assert not make_plan(desired(signing), live(there(signing)), recorded(signing), known).warnings


def test_two_names_of_one_address_are_one_account() -> None:
    known = LocalState(keyfiles={"me": "aa", "also-me": "aa", "you": "bb"})
    with pytest.raises(DeployError, match="a, b: they sign with one account"):
        make_plan(desired(bot("a", account="me"), bot("b", account="also-me")), live(), local=known)
    make_plan(desired(bot("a", account="me"), bot("b", account="you")), live(), local=known)


@pytest.mark.parametrize("network", ["local", "mainnet-fork"])
def test_bots_share_a_test_account_where_nothing_is_lost(network: str) -> None:
    bots = [bot(name, account="TEST::0", network=network) for name in "ab"]
    assert len(make_plan(desired(*bots), live()).writes) == 2
    with pytest.raises(DeployError, match="one account"):
        make_plan(desired(*(bot(name, account="TEST::0") for name in "ab")), live())


def test_a_rollback_restores_the_agreement_to_share() -> None:
    bots = [bot(name, account="me", share_account=True) for name in "ab"]
    assert [one.share_account for one in make_plan(desired(*bots), live()).bots] == [True, True]


def test_a_value_that_looks_like_a_private_key_is_warned_of_by_name_before_it_is_sent() -> None:
    local = replace(having("KEY", "URL"), private_keys=frozenset({"KEY"}))
    wanted = desired(bot(environment=("rpc",)), groups={"rpc": ("KEY", "URL")})
    [warning] = make_plan(wanted, live(), local=local).warnings
    assert warning.startswith("the value of KEY in rpc looks like a private key")
    with pytest.raises(DeployError, match=r"the value of KEY in rpc looks like a private key.*`strict:`"):
        make_plan(replace(wanted, strict=True), live(), local=local)
    sent = live(there(bot(environment=("rpc",))), groups={"rpc": {"KEY", "URL"}})
    known = recorded(bot(environment=("rpc",)), groups={"rpc": ("KEY", "URL")})
    assert not make_plan(replace(wanted, strict=True), sent, known, local).warnings, "it isn't sent"


def test_a_keyfile_account_without_its_passphrase_is_warned_of_when_the_bot_starts() -> None:
    known = replace(having("APE_ACCOUNTS_me_PASSPHRASE"), keyfiles={"me": "aa", "my-key": "bb"})
    signing = bot(account="me", environment=("keys",))

    def warned(wanted: DesiredState, state: LiveState) -> tuple[str, ...]:
        return tuple(text for text in make_plan(wanted, state, recorded(signing), known).warnings if "keyfile" in text)

    passphrase = ("APE_ACCOUNTS_me_PASSPHRASE",)
    [warning] = warned(desired(signing), live(groups={"keys": {"OTHER"}}))
    assert warning.startswith("a: account 'me' is a keyfile, and APE_ACCOUNTS_me_PASSPHRASE isn't in a variable group")
    assert not warned(desired(signing), live(groups={"keys": set(passphrase)}))
    assert not warned(desired(signing, groups={"keys": passphrase}), live())
    assert not warned(desired(bot(account="somewhere-else")), live())
    assert not warned(desired(signing), live(there(signing), groups={"keys": {"OTHER"}})), "nothing is started"
    [warning] = warned(desired(bot(account="my-key")), live())
    assert warning.endswith("no variable can be called so, rename the account first")


def test_of_two_projects_that_claimed_a_bot_at_once_one_has_it_and_the_other_is_told_which() -> None:
    claims = {uuid5(SPACE, "a"): {"file:///one": 3, "file:///two": 3}}
    [known] = recorded(bot()).bots
    record = RecordedState((known.model_copy(update={"claim": 3}),), last=1)
    seen = live(there(bot()), claims=claims)
    kept, lost = (without_taken(record, seen, project) for project in ("file:///two", "file:///one"))
    assert kept == (record, {})
    assert (lost[0].bots, lost[1]) == ((), {"a": "file:///two"})
