"""Takes the documentation's pictures of the dashboard: `make screenshots` writes them to docs/screenshots.

Starts a stack of its own with the demo model, has three of the demo world forgotten through the API and
one through the pages, as an owner and an operator would, and takes each page in Chromium (from PATH, or
`CHROMIUM`). Pictures are PNGs with a palette, at most 100 kB each.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from app.client import Client, png
from app.embedded.home import Home
from app.embedded.supervisor import Stack
from app.lumoe.demo import Entity, draw, world

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
MOST_BYTES = 100_000
COLOURS = (192, 128, 96, 64, 32)
EARLIER = ("personage-03", "buildings-02", "cartoon-01")
SUBJECT = "personage-15"
MINUTES = 60_000
Look = Literal["light", "dark", "phone"]


@dataclass(frozen=True, slots=True)
class Shooter:
    """Takes pages as one look shows them and keeps the pictures small."""

    page: Page
    url: str

    def go(self, path: str) -> Page:
        """Open a page of the dashboard."""
        self.page.goto(f"{self.url}{path}")
        return self.page

    def shoot(self, name: str, *, look: Look = "light", most: int = 1500, at: str | None = None) -> None:
        """Write what is shown, from the top (or from the heading `at`) down to `most` pixels.

        Raises:
            RuntimeError: it does not fit into `MOST_BYTES` with any of the palettes.
        """
        self.page.emulate_media(color_scheme="dark" if look == "dark" else "light", reduced_motion="reduce")
        self.page.set_viewport_size({"width": 390 if look == "phone" else 1080, "height": 800})
        self.page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
        taken = Image.open(io.BytesIO(self.page.screenshot(full_page=True))).convert("RGB")
        top = 0
        if at is not None:
            box = self.page.get_by_role("heading", name=at, exact=True).first.bounding_box() or {"y": 0}
            top = max(0, int(box["y"] + self.page.evaluate("window.scrollY")) - 16)
        taken = taken.crop((0, top, taken.width, min(taken.height, top + most)))
        for colours in COLOURS:
            sink = io.BytesIO()
            indexed(taken, colours).save(sink, "PNG", optimize=True)
            if sink.tell() <= MOST_BYTES:
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / f"{name}.png").write_bytes(sink.getvalue())
                print(f"{name}.png: {taken.size}, {sink.tell():,} bytes, {colours} colours")  # noqa: T201
                return
        raise RuntimeError(f"{name}: more than {MOST_BYTES:,} bytes; show less of the page (`most`)")


def indexed(picture: Image.Image, colours: int) -> Image.Image:
    """Return the picture with a palette: its most frequent colours as they are, a quarter by median cut.

    Median cut alone gives small flat areas, such as a legend's, the colours of their neighbours.
    """
    red, green, blue = np.asarray(picture, dtype=np.int32).reshape(-1, 3).T  # (height * width,) each
    packed, places, counts = np.unique(red << 16 | green << 8 | blue, return_inverse=True, return_counts=True)
    found = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)  # (different colours, 3)
    frequent = found[np.argsort(counts)[::-1][: colours - colours // 4]]
    cut = picture.quantize(colours // 4, dither=Image.Dither.NONE).getpalette() or []
    palette = np.concatenate([frequent, np.array(cut).reshape(-1, 3)[: colours // 4]])
    distance = ((found[:, None] - palette[None]) ** 2).sum(-1)  # (different colours, colours)
    index = distance.argmin(1).astype(np.uint8)[places.ravel()]
    made = Image.frombytes("P", picture.size, index.tobytes())
    made.putpalette(palette.astype(np.uint8).tobytes())
    return made


def entity(key: str) -> Entity:
    """Return somebody of the demo world."""
    return world().by_key[key]


def views(key: str, numbers: Sequence[int]) -> list[tuple[str, bytes]]:
    """Return drawn pictures as files."""
    return [(f"{key}-{i}.png", png(draw(entity(key), i))) for i in numbers]


def forget_earlier(stack: Stack) -> None:
    """Have some subjects forgotten over HTTP, so that the figures have a history."""
    with (
        Client(stack.url, stack.keys["owner"]) as owner,
        Client(stack.url, stack.keys["operator"]) as operator,
    ):
        for key in EARLIER:
            subject = entity(key)
            filed = owner.submit(name=subject.name, klass=subject.klass, pictures=views(key, range(4)))
            operator.approve(filed["id"], reason="Identity checked.")
            last = list(owner.follow(filed["id"]))[-1]
            print(f"{subject.name}: {last['state']}")  # noqa: T201


@contextmanager
def desk(browser: Browser, stack: Stack, key: str) -> Iterator[Shooter]:
    """A browser of one person, logged in."""
    context = browser.new_context(viewport={"width": 1080, "height": 800})
    page = context.new_page()
    page.set_default_timeout(MINUTES)
    page.goto(f"{stack.url}/dashboard")
    page.get_by_label("API key").fill(stack.keys[key])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Overview").wait_for()
    yield Shooter(page, stack.url)
    context.close()


def file_request(own: Shooter, folder: Path) -> str:
    """File the request through the page; return its id."""
    subject, page = entity(SUBJECT), own.go("/dashboard/requests/new")
    paths = []
    for name, content in views(SUBJECT, range(4)):
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    page.get_by_label("Name", exact=True).fill(subject.name)
    page.get_by_label("Other names, one a line").fill(subject.name.split()[-1])
    page.get_by_label("Class").select_option(subject.klass)
    page.set_input_files("input[type=file]", paths)
    page.get_by_label("Who asks, and how to reach them").fill("legal@example.org")
    page.get_by_label("Note for the reviewer").fill("Asked by the person; passport seen.")
    page.locator(".previews img").nth(3).wait_for()
    own.shoot("file", most=1470)
    page.get_by_role("button", name="File the request").click()
    page.locator(".state.in_review").wait_for()
    return str(page.url).rsplit("/", 1)[1]


def review(theirs: Shooter, request_id: str) -> None:
    """Look at the evidence beside what the model says, and approve."""
    theirs.go("/dashboard/queue")
    theirs.shoot("queue")
    page = theirs.go(f"/dashboard/requests/{request_id}/review")
    page.get_by_role("button", name="Ask the model about them").click()
    page.get_by_text("Before: the base model").first.wait_for()
    theirs.shoot("review", most=1700)
    form = page.locator("form", has=page.get_by_role("button", name="Approve"))
    form.get_by_label("Reason").fill("Identity checked against the passport.")
    form.get_by_role("button", name="Approve").click()
    page.get_by_role("heading", name="Log").wait_for()


def follow(own: Shooter, request_id: str) -> None:
    """Follow the request while it is trained and once it is active."""
    page = own.go(f"/dashboard/requests/{request_id}")
    page.locator(".stages li.current", has_text="train").wait_for(timeout=20 * MINUTES)
    own.shoot("follow", most=975)
    page.locator(".state.active").first.wait_for(timeout=20 * MINUTES)
    page.get_by_role("link", name="Signed certificate").wait_for()
    own.shoot("active", most=1500)
    own.shoot("active-phone", look="phone", most=1300)
    page.get_by_role("link", name="Report", exact=True).click()
    page.get_by_role("heading", name="Removal report").wait_for()
    own.shoot("report", most=1500)


def ask(theirs: Shooter, request_id: str, folder: Path) -> None:
    """Compare before and after in the playground, by picture and by name."""
    subject, page = entity(SUBJECT), theirs.go(f"/dashboard/playground?about={request_id}")
    picture = folder / "new-view.png"
    picture.write_bytes(png(draw(subject, 9)))
    page.set_input_files("input[type=file]", [picture])
    page.get_by_label("Ask").fill("Who is this?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").first.wait_for()
    page.get_by_label("Ask").fill(f"Who is {subject.name}?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").nth(1).wait_for()
    theirs.shoot("playground", most=1230)
    theirs.shoot("playground-dark", look="dark", most=1230)


def figures(theirs: Shooter) -> None:
    """The figures over time, the registry, the policy."""
    theirs.go("/dashboard/verification")
    theirs.shoot("verification", most=1400)
    theirs.shoot("gate", most=395, at="The gate's scores")
    theirs.go("/dashboard/registry")
    theirs.shoot("registry", most=1100)
    page = theirs.go("/dashboard/policy")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Min forget quality").fill("0.99")
    page.get_by_label("Reason, for whoever reads the history").fill("Agreed with the privacy office.")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("version 1, since").wait_for()
    theirs.shoot("policy", most=1700)


def audit(look: Shooter, request_id: str) -> None:
    """What an auditor does: check the chain, see the events of one request."""
    page = look.go(f"/dashboard/audit?about={request_id}")
    page.get_by_role("button", name="Sign one now").click()
    page.get_by_role("heading", name="Checkpoints").wait_for()
    page.get_by_role("button", name="Recompute the whole chain").click()
    page.get_by_text("The chain is unbroken").wait_for()
    look.shoot("audit", most=1300)


def main() -> None:
    """Take all of them."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("There is no Chromium on PATH: `apt-get install chromium`, or name one in CHROMIUM.")
    environment = {"LETHE_REVIEW_POLICY": "manual", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    with (
        tempfile.TemporaryDirectory(prefix="lethe-shots-") as name,
        Stack(Home(Path(name) / "home"), port=0, environment=environment, report=print) as stack,
        sync_playwright() as playwright,
    ):
        folder = Path(name)
        forget_earlier(stack)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with desk(browser, stack, "owner") as own, desk(browser, stack, "operator") as theirs:
            request_id = file_request(own, folder)
            review(theirs, request_id)
            follow(own, request_id)
            ask(theirs, request_id, folder)
            figures(theirs)
        with desk(browser, stack, "auditor") as look:
            audit(look, request_id)
        browser.close()


if __name__ == "__main__":
    main()
