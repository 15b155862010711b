"""What somebody sees and does in a browser."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.chain import TOOLS
from tests.server.dashboard.conftest import HOSTILE, Site
from tests.server.machine import KEY

pytestmark = [pytest.mark.xdist_group("browser")]

expect.set_options(timeout=20_000)


def test_a_key_opens_the_dashboard_and_a_wrong_one_doesnt(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("This isn't a key of this cluster.")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Bots", exact=True)).to_be_visible()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto(site.url)
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_bot_that_dies_moves_to_the_top_by_itself(logged_in: Page, site: Site) -> None:
    for name in ("alpha", "beta", "gamma"):
        site.bot(name)
    rows = logged_in.locator("tbody tr")
    expect(rows).to_have_count(3)
    site.cluster.die("beta", 1)
    expect(rows.first).to_contain_text("beta")
    expect(rows.first).to_contain_text("exited with code 1")
    expect(logged_in.get_by_role("status").first).to_contain_text("1 in trouble")


def test_chosen_bots_are_stopped_and_started_after_a_question_that_names_the_account(
    logged_in: Page, site: Site
) -> None:
    for name in ("one", "two"):
        site.bot(name, account="deployer")
    for name in ("one", "two"):
        logged_in.get_by_label(f"Select {name}").check()
    logged_in.get_by_role("button", name="Stop selected", exact=True).click()
    dialog = logged_in.get_by_role("dialog")
    expect(dialog).to_contain_text("one, which signs with deployer on ethereum:mainnet")
    expect(dialog).to_contain_text("ape silverback cluster bots stop one two --yes")
    dialog.get_by_role("button", name="Cancel").click()
    assert site.client.bots["one"].task.last_status == "RUNNING"  # type: ignore[union-attr]
    for name in ("one", "two"):
        expect(logged_in.get_by_label(f"Select {name}")).to_be_checked()  # also after the rows were replaced
    logged_in.get_by_role("button", name="Stop selected", exact=True).click()
    dialog.get_by_role("button", name="Stop", exact=True).click()
    row = logged_in.locator("tbody tr", has=logged_in.get_by_role("link", name="one", exact=True))
    expect(row).to_contain_text("stopped by the user")
    logged_in.get_by_label("Select one").check()
    logged_in.get_by_role("button", name="Start selected", exact=True).click()
    dialog.get_by_role("button", name="Start", exact=True).click()
    expect(row).to_contain_text("running")


def test_the_log_is_live_filtered_paused_and_linked(logged_in: Page, site: Site) -> None:
    site.bot("talker")
    site.say("talker", "first words")
    logged_in.goto(f"{site.url}/ui/bots/{site.client.bots['talker'].id}")
    log = logged_in.get_by_role("log")
    expect(log).to_contain_text("first words")
    site.say("talker", "second words")
    expect(log).to_contain_text("second words")
    logged_in.get_by_label("Only lines that match").fill("^.*second")
    expect(log.get_by_text("first words")).to_be_hidden()
    expect(log.get_by_text("second words")).to_be_visible()
    logged_in.get_by_label("Only lines that match").fill("")
    logged_in.get_by_role("button", name="Pause").click()
    site.say("talker", "third words")
    expect(logged_in.locator("#log-status")).to_have_text("Paused; 1 new line")
    expect(log).not_to_contain_text("third words")
    logged_in.get_by_role("button", name="Resume").click()
    expect(log).to_contain_text("third words")
    address = log.locator(".line", has_text="second words").locator("a").get_attribute("href")
    assert address is not None
    logged_in.goto(address)
    expect(log.locator(".marked")).to_contain_text("second words")
    logged_in.get_by_label("Lowest level").select_option("ERROR")
    site.say("talker", "it broke", "ERROR")
    expect(log).to_contain_text("it broke")
    expect(log).not_to_contain_text("first words")


def test_errors_are_counted_and_acknowledged(logged_in: Page, site: Site) -> None:
    site.bot("failing")
    for _ in range(3):
        site.say("failing", "ValueError: rate limit reached", "ERROR")
    logged_in.goto(f"{site.url}/ui/bots/{site.client.bots['failing'].id}")
    errors = logged_in.locator("#errors")
    expect(errors).to_contain_text(re.compile(r"3 .\s+ValueError: rate limit reached"))
    logged_in.get_by_role("button", name="Acknowledge all").click()
    expect(errors).to_have_text("No errors in its latest run.")
    assert site.client.bots["failing"].errors == []
    site.say("failing", "ValueError: another one", "ERROR")
    expect(errors).to_contain_text(re.compile(r"1 .\s+ValueError: another one"))


def test_what_a_bot_records_is_drawn(logged_in: Page, site: Site) -> None:
    bot = site.bot("measuring")
    site.record(bot, 120, gas_price=20.5)
    logged_in.goto(f"{site.url}/ui/bots/{bot.id}")
    charts = logged_in.locator("#charts figure")
    expect(charts).to_have_count(5)
    expect(charts.last).to_contain_text("gas_price")
    expect(charts.last.get_by_role("img")).to_have_attribute("aria-label", re.compile("latest value 20.5"))


def test_what_a_bot_says_is_text_wherever_it_shows(logged_in: Page, site: Site) -> None:
    bot = site.bot("evil", image=f"ghcr.io/me/{HOSTILE}", network=HOSTILE, account=HOSTILE)
    site.record(bot, 5, **{HOSTILE: 1.0})
    site.say("evil", HOSTILE, "ERROR")
    logged_in.goto(site.url)
    expect(logged_in.locator("tbody")).to_contain_text(HOSTILE)
    logged_in.goto(f"{site.url}/ui/bots/{bot.id}")
    for place in ("#log", "#errors", "#charts", "#state"):
        expect(logged_in.locator(place)).to_contain_text(HOSTILE)
    logged_in.get_by_role("button", name="Stop", exact=True).click()
    expect(logged_in.get_by_role("dialog")).to_contain_text(HOSTILE)
    assert logged_in.locator("img[src=x]").count() == 0
    assert logged_in.title() != "owned"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])  # colours don't depend on the width
def test_an_accessibility_checker_finds_nothing(browser: Browser, site: Site, scheme: str, width: int) -> None:
    if "checked" not in site.client.bots:
        bot = site.bot("checked", account="deployer")
        site.record(bot, 60, price=1.0)
        site.say("checked", "boom", "ERROR")
        site.say("checked", "hello")
        site.bot("dead")
        site.cluster.die("dead", 1)
        site.deployed(bot, "failed: it stopped")
    checked = site.client.bots["checked"]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(site.link())
    found = []
    for path in ("/", f"/ui/bots/{checked.id}", "/ui/deployments", f"/?stop={checked.id}", "/ui/login"):
        page.goto(f"{site.url}{path}")
        if "stop" in path:
            page.get_by_label("Select checked").check()
            page.get_by_role("button", name="Stop selected", exact=True).click()
            expect(page.get_by_role("dialog")).to_be_visible()
        if "/ui/bots" in path:
            expect(page.locator("#charts figure").first).to_be_visible()
            expect(page.get_by_role("log")).to_contain_text("hello")
        page.add_script_tag(path=TOOLS / "node_modules" / "axe-core" / "axe.min.js")
        result = page.evaluate("axe.run()")
        found += [(path, one["id"], one["impact"], one["nodes"][0]["html"]) for one in result["violations"]]
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is wider than the screen"
    context.close()
    assert found == []


def test_an_error_leads_to_the_log_at_its_time(logged_in: Page, site: Site) -> None:
    bot = site.bot("jumping")
    begin = datetime.now(timezone.utc)
    lines = [f"{(begin + timedelta(seconds=second)).isoformat()} INFO:     line {second}" for second in (1, 2)]
    lines.insert(1, f"{(begin + timedelta(seconds=1.5)).isoformat()} ERROR:    ValueError: no pool")
    site.cluster.log("jumping", *lines)
    logged_in.goto(f"{site.url}/ui/bots/{bot.id}")
    logged_in.locator("#errors").get_by_role("link", name="Show the log at that time").click()
    expect(logged_in.locator("#log .marked")).to_contain_text("ValueError: no pool")
    expect(logged_in.get_by_text("from a minute before the marked line on")).to_be_visible()


def test_a_bot_tells_where_its_values_came_from_what_changed_and_who_deployed(logged_in: Page, site: Site) -> None:
    bot = site.bot("deployed", account="deployer")
    site.deployed(bot, "ready: running and healthy")
    bot.update(image="ghcr.io/me/deployed:2")
    logged_in.goto(f"{site.url}/ui/bots/{bot.id}")
    configuration = logged_in.get_by_role("region", name="Table of the configuration")
    expect(configuration.get_by_role("row", name="account")).to_contain_text(
        "bots.deployed.account (ape-config.yaml:8)"
    )
    expect(configuration.get_by_role("row", name="image")).to_contain_text("changed on the cluster since deployment")
    expect(logged_in.get_by_text("by me@laptop").first).to_contain_text("commit c0ffee00")
    expect(logged_in.locator("#timeline")).to_contain_text("by me@laptop: ready: running and healthy")
    logged_in.goto(site.url)
    row = logged_in.locator("tbody tr", has=logged_in.get_by_role("link", name="deployed", exact=True))
    expect(row).to_contain_text("c0ffee00")
    expect(row).to_contain_text("0.0021 ETH")


def test_the_keyboard_is_enough(logged_in: Page, site: Site) -> None:
    bot = site.bot("keyed", account="deployer")
    logged_in.goto(site.url)
    logged_in.keyboard.press("Tab")
    expect(logged_in.get_by_role("link", name="Skip to content")).to_be_focused()
    logged_in.get_by_label("Select keyed").focus()
    logged_in.keyboard.press("Space")
    expect(logged_in.locator("#selected")).to_have_text("1 selected")
    while logged_in.evaluate("document.activeElement.ariaLabel") != "Stop selected":
        logged_in.keyboard.press("Shift+Tab")
    outline = logged_in.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "one sees where one is"
    logged_in.keyboard.press("Enter")
    dialog = logged_in.get_by_role("dialog", name="Stop keyed?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    logged_in.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(logged_in.get_by_role("button", name="Stop selected", exact=True)).to_be_focused()
    logged_in.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Stop", exact=True).focus()
    logged_in.keyboard.press("Enter")
    row = logged_in.locator("tbody tr", has=logged_in.get_by_role("link", name="keyed", exact=True))
    expect(row).to_contain_text("stopped by the user")
    assert site.client.bots["keyed"].id == bot.id


def test_only_what_makes_sense_can_be_done_to_a_bot(logged_in: Page, site: Site) -> None:
    bot = site.bot("able")
    logged_in.goto(f"{site.url}/ui/bots/{bot.id}")
    start, stop, restart = (
        logged_in.get_by_role("button", name=name, exact=True) for name in ("Start", "Stop", "Restart")
    )
    expect(start).to_be_disabled()
    stop.click()
    logged_in.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
    expect(start).to_be_enabled()
    expect(stop).to_be_disabled()
    expect(restart).to_be_disabled()


def test_a_page_tells_that_it_is_cut_off_and_leads_to_the_login_once_that_is_over(page: Page, site: Site) -> None:
    page.goto(site.link())
    notice = page.get_by_text("The connection to the cluster is lost")
    expect(notice).to_be_hidden()
    page.route("**/ui/events", lambda route: route.abort())
    page.reload()
    expect(notice).to_be_visible()
    page.unroute("**/ui/events")
    expect(notice).to_be_hidden()
    page.context.clear_cookies()
    page.route("**/ui/events", lambda route: route.abort())
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()


def test_the_page_of_whose_key_is_revoked_leads_to_the_login_by_itself(page: Page, site: Site) -> None:
    key = site.new_key("leaver", "write")
    page.goto(site.url)
    page.get_by_label("API key").fill(key.secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Bots", exact=True)).to_be_visible()
    key.revoke()
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_command_is_copied(browser: Browser, site: Site) -> None:
    bot = site.bot("copied")
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(site.link())
    page.goto(f"{site.url}/ui/bots/{bot.id}")
    page.get_by_role("button", name="Restart", exact=True).click()
    page.get_by_role("button", name="Copy command").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").splitlines() == [
        "ape silverback cluster bots stop copied --yes",
        "ape silverback cluster bots start copied --yes",
    ]
    context.close()
