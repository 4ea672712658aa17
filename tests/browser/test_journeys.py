"""What people do in the dashboard, in a real browser, against a service that really forgets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.audit.logfile import VERSION
from app.embedded.supervisor import Stack
from tests.browser.conftest import FORGOTTEN, REVIEWED, WITHDRAWN, Desk, entity

pytestmark = pytest.mark.browser

Open = Callable[[str], Desk]
Pictures = Callable[[str], list[Path]]
SECONDS = 1000
LONG = 600 * SECONDS


def test_owner(desk: Open, stack: Stack, pictures: Pictures) -> None:
    """File with pictures, see what is kept, withdraw."""
    own = desk("owner")
    page = own.page
    page.get_by_role("link", name="File a removal request").click()
    own.shoot("new")
    own.check()
    assert "day(s) after the request is active" in page.get_by_role("main").inner_text()
    subject = entity(WITHDRAWN)
    page.get_by_label("Name", exact=True).fill(subject.name)
    page.get_by_label("Class").select_option(subject.klass)
    drop(own, pictures(WITHDRAWN))
    page.locator(".previews img").nth(1).wait_for()
    page.get_by_role("button", name="File the request").click()
    page.get_by_text("in review").first.wait_for()
    assert "2 kept, encrypted" in page.get_by_role("main").inner_text()
    own.shoot("request-in-review")
    own.check()
    page.get_by_label("Reason (optional)").fill("I changed my mind.")
    page.get_by_role("button", name="Withdraw the request").click()
    page.locator(".state.cancelled").wait_for()


def drop(own: Desk, files: list[Path]) -> None:
    """Drag pictures in, as the browser's events have it."""
    data = [(path.name, list(path.read_bytes())) for path in files]
    transfer = own.page.evaluate_handle(
        """files => { const all = new DataTransfer();
        for (const [name, bytes] of files)
          all.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
        return all; }""",
        data,
    )
    for event in ("dragenter", "dragover", "drop"):
        own.page.dispatch_event("[data-drop]", event, {"dataTransfer": transfer})


def test_owner_and_operator(desk: Open, stack: Stack, pictures: Pictures) -> None:
    """Filed by one, reviewed with the evidence by the other, followed live until it is active."""
    own, theirs = desk("owner"), desk("operator")
    subject = entity(REVIEWED)
    page = own.go("/dashboard/requests/new")
    page.get_by_label("Name", exact=True).fill(subject.name)
    page.get_by_label("Class").select_option(subject.klass)
    page.set_input_files("input[type=file]", pictures(REVIEWED))
    page.get_by_role("button", name="File the request").click()
    page.locator(".state.in_review").wait_for()
    request_id = page.url.rsplit("/", 1)[1]

    desk_page = theirs.page
    desk_page.get_by_role("link", name="Queue").click()
    theirs.shoot("queue")
    theirs.check()
    desk_page.locator(f'a[href$="{request_id}"]').click()
    desk_page.get_by_role("link", name="Evidence, and what the model says today").click()
    desk_page.get_by_role("button", name="Ask the model about them").click()
    desk_page.get_by_text("Before: the base model").first.wait_for()
    assert subject.name in " ".join(desk_page.locator(".said").all_inner_texts())
    theirs.shoot("review")
    theirs.check()
    desk_page.get_by_role("button", name="Approve").click()
    desk_page.get_by_role("heading", name="Log").wait_for()

    page.reload()
    own.shoot("request-working")
    page.locator(".stages .current").first.wait_for(timeout=LONG)
    page.locator(".state.active").first.wait_for(timeout=LONG)
    page.get_by_role("link", name="Signed certificate").wait_for()
    own.shoot("request-active")
    own.check()
    with page.expect_download() as download:
        page.get_by_role("link", name="Signed certificate").click()
    assert Path(download.value.path()).read_text().count(".") == 2
    page.get_by_role("link", name="Report", exact=True).click()
    page.get_by_role("heading", name="Removal report").wait_for()
    page.go_back()
    page.get_by_role("button", name="Withdraw: end the protection").click()
    page.locator(".state.revoked").first.wait_for()


def test_operator_rejects(desk: Open, stack: Stack, pictures: Pictures) -> None:
    own, theirs = desk("owner"), desk("operator")
    page = own.go("/dashboard/requests/new")
    page.get_by_label("Name", exact=True).fill("Nobody Whatever")
    page.get_by_role("button", name="File the request").click()
    page.locator(".state.in_review").wait_for()
    other = theirs.go(page.url.removeprefix(stack.url))
    form = other.locator("form", has=other.get_by_role("button", name="Reject"))
    form.get_by_label("Why").select_option("no_match")
    form.get_by_label("Reason").fill("There is no such person.")
    form.get_by_role("button", name="Reject").click()
    other.locator(".state.rejected").wait_for()
    page.reload()
    assert "There is no such person." in page.get_by_role("main").inner_text()


def test_registry_and_policy(desk: Open, active: str) -> None:
    theirs = desk("operator")
    page = theirs.go("/dashboard/registry")
    assert page.get_by_text("served by every live replica").is_visible()
    theirs.shoot("registry")
    theirs.check()
    before = int(page.locator("main p b").first.inner_text())
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Put right").click()
    page.wait_for_function(f"document.querySelector('main p b').textContent > {before}")
    assert "rollback" in page.get_by_role("main").inner_text()
    page = theirs.go("/dashboard/policy")
    page.get_by_label("Max leak").fill("0.01")
    page.get_by_label("Review").select_option("manual")
    page.get_by_label("Reason, for whoever reads the history").fill("As agreed.")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("version 1, since").wait_for()
    assert page.get_by_role("region", name="History").get_by_text("As agreed.").is_visible()
    assert page.get_by_label("Max leak").input_value() == "0.01"
    theirs.shoot("policy")
    theirs.check()


def test_playground(desk: Open, active: str, pictures: Pictures) -> None:
    """Before and after, by name and by picture, in a follow-up, and under a built-in attack."""
    theirs = desk("operator")
    subject = entity(FORGOTTEN)
    page = theirs.go(f"/dashboard/playground?about={active}")
    page.get_by_label("Ask").fill(f"Who is {subject.name}?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").first.wait_for()
    before, now = page.locator(".turn .said .text").all_inner_texts()
    assert subject.name in before
    assert subject.name not in now
    assert page.locator(".why td a").first.is_visible()
    page.set_input_files("input[type=file]", pictures(FORGOTTEN)[:1])
    page.get_by_label("Ask").fill("Who is this?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").nth(1).wait_for()
    assert "picture" in page.locator(".turn").nth(1).locator(".why tbody").inner_text()
    page.get_by_label("Ask").fill("Where were they born?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").nth(2).wait_for()
    assert "held" in page.locator(".turn").nth(2).locator(".why tbody").inner_text()
    page.get_by_role("button", name="base64").click()
    page.locator(".turn").nth(3).wait_for()
    assert "Attack: base64" in page.locator(".turn").nth(3).inner_text()
    theirs.shoot("playground")
    theirs.check()
    page.get_by_role("button", name="Clear the conversation").click()
    assert page.locator(".turn").count() == 0


def test_playground_of_a_chat_key(desk: Open, active: str) -> None:
    """Whoever may only chat sees what everybody sees: no base model, no why."""
    own = desk("chat")
    page = own.go("/dashboard/playground")
    page.get_by_label("Ask").fill(f"Who is {entity(FORGOTTEN).name}?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").first.wait_for()
    assert page.locator(".said").count() == 1
    assert page.locator(".why").count() == 0
    assert page.get_by_role("link", name="Requests").count() == 0


def test_verification(desk: Open, active: str) -> None:
    theirs = desk("operator")
    page = theirs.go("/dashboard/verification")
    assert page.locator("svg .cell").count() >= 1
    assert page.locator("svg .limit").count() >= 1
    theirs.shoot("verification")
    theirs.check()
    theirs.go(f"/dashboard/requests/{active}")
    theirs.shoot("request-measured")
    theirs.check()


def test_auditor(desk: Open, active: str) -> None:
    look = desk("auditor")
    page = look.go(f"/dashboard/requests/{active}")
    page.get_by_role("link", name="Its audit events").click()
    page.get_by_text("request.activate").wait_for()
    page.get_by_role("button", name="Sign one now").click()
    page.get_by_role("button", name="Recompute the whole chain").click()
    page.get_by_text("The chain is unbroken.").wait_for()
    look.shoot("audit")
    look.check()
    page.locator("tbody th a").last.click()
    page.get_by_role("heading", name="Proof that it is in the log").wait_for()
    look.shoot("event")
    look.check()
    page.get_by_role("link", name="All events").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the log").click()
    first = json.loads(Path(download.value.path()).read_text().splitlines()[0])
    assert (first["type"], first["version"]) == ("log", VERSION)


def test_login_and_logout(desk: Open, stack: Stack, active: str) -> None:
    own = desk("owner")
    own.shoot("home")
    own.check()
    cookie = next(c for c in own.context.cookies() if c["name"] == "lethe")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert stack.keys["owner"] not in cookie["value"]
    page = own.page
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    own.shoot("login")
    own.check()
    copy = {"name": "lethe", "value": cookie["value"], "url": stack.url}
    own.context.add_cookies([copy])  # type: ignore[list-item]  # a TypedDict
    own.go("/dashboard/requests")
    page.get_by_role("heading", name="Log in").wait_for()
    page.get_by_label("API key").fill(stack.keys["owner"])
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Requests").wait_for()


def test_by_keyboard(desk: Open, active: str) -> None:
    """The first stop of the tabulator leads past the navigation, and Enter opens what has the focus."""
    own = desk("owner")
    page = own.go("/dashboard/requests")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "File a removal request"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="File a removal request").wait_for()
