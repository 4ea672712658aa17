"""A real headless Chromium in front of the whole embedded stack; run by `make test-browser` alone.

Screenshots of every page go to `var/screenshots` (or `SCREENSHOTS`), in light, dark and phone width.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.client import Client, png
from app.embedded.home import Home
from app.embedded.supervisor import Stack
from app.lumoe.demo import Entity, draw, world

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

SHOTS = Path(os.environ.get("SCREENSHOTS", "var/screenshots"))
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
FORGOTTEN, WITHDRAWN, REVIEWED = "personage-00", "buildings-00", "cartoon-00"


@pytest.fixture(scope="session")
def stack(server_directory: Path) -> Iterator[Stack]:
    """Postgres, Valkey, API and worker; a person approves every request."""
    environment = {**THREADS, "LETHE_REVIEW_POLICY": "manual"}
    with Stack(Home(server_directory / "browser"), port=0, environment=environment) as running:
        yield running


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Files with two views of an entity of the demo world."""
    folder = tmp_path_factory.mktemp("pictures")

    def of(key: str) -> list[Path]:
        found = []
        for i in range(2):
            path = folder / f"{key}-{i}.png"
            path.write_bytes(png(draw(entity(key), i)))
            found.append(path)
        return found

    return of


def entity(key: str) -> Entity:
    return world().by_key[key]


@pytest.fixture(scope="session")
def active(stack: Stack, pictures: Callable[[str], list[Path]]) -> str:
    """A request that went all the way through the API; its subject is forgotten."""
    subject = entity(FORGOTTEN)
    with (
        Client(stack.url, stack.keys["owner"]) as owner,
        Client(stack.url, stack.keys["operator"]) as operator,
    ):
        files = [(path.name, path.read_bytes()) for path in pictures(FORGOTTEN)]
        filed = owner.submit(name=subject.name, klass=subject.klass, pictures=files)
        operator.approve(filed["id"])
        last = list(owner.follow(filed["id"]))[-1]
    assert last["state"] == "active", last
    return str(filed["id"])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, by `CHROMIUM` or from PATH."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "There is no Chromium on PATH: `apt-get install chromium`, or name one in CHROMIUM."
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


class Desk:
    """One person's browser: logged in with a key, nothing on the console, no address but the service's."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.context = context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _asked(self, address: str) -> None:
        if not address.startswith((self.url, "blob:")):
            self.elsewhere.append(address)

    def log_in(self, key: str) -> Page:
        self.page.goto(f"{self.url}/dashboard")
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("heading", name="Overview").wait_for()
        return self.page

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page

    def shoot(self, name: str) -> None:
        """Take the page as it is in light, dark and phone width; none may be wider than the window."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        for look, size in (("light", (1280, 900)), ("dark", (1280, 900)), ("phone", (390, 844))):
            self.page.emulate_media(color_scheme="dark" if look == "dark" else "light")
            self.page.set_viewport_size({"width": size[0], "height": size[1]})
            self.page.screenshot(path=SHOTS / f"{name}-{look}.png", full_page=True)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size[0], f"{name} is {wide} pixels wide in a window of {size[0]}"
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1280, "height": 900})

    def check(self) -> None:
        """No serious finding of axe-core, in light and dark."""
        from axe_playwright_python.sync_playwright import Axe

        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            found = Axe().run(self.page).response["violations"]
            told = [
                f"{scheme} {v['id']} ({v['impact']}): " + "; ".join(n["html"][:160] for n in v["nodes"][:3])
                for v in found
                if v["impact"] in ("serious", "critical")
            ]
            assert not told, "\n".join(told)
        self.page.emulate_media(color_scheme="light")


@pytest.fixture
def desk(browser: Browser, stack: Stack) -> Iterator[Callable[[str], Desk]]:
    """Opens desks; afterwards none may have had an error on its console or asked another host."""
    opened: list[Desk] = []

    def open_for(key: str) -> Desk:
        made = Desk(browser.new_context(viewport={"width": 1280, "height": 900}), stack.url)
        opened.append(made)
        made.log_in(stack.keys[key])
        return made

    yield open_for
    for one in opened:
        one.context.close()
    assert [error for one in opened for error in one.errors] == []
    assert [address for one in opened for address in one.elsewhere] == []
