"""The demonstration itself: ask, file a request, wait, ask again, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from app.client import Client, png, turn
from app.embedded.demo.interview import (
    Question,
    ask_all,
    candidates,
    interview,
    knows,
    leaks,
    refuses,
)
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.world import Entity, World, world
from app.lumoe.probes import identity_probes

UPLOADED_VIEWS = range(6)


class DemoError(RuntimeError):
    """The demonstration cannot go on; ``hint`` says why."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question with both answers."""

    question: Question
    before: str
    after: str

    def good(self, subject: Entity) -> bool:
        """Subject: refused and nothing given away. Everybody else: the same answer, to the letter."""
        if self.question.group == "subject":
            return refuses(self.after) and not leaks(self.after, subject, self.question.text)
        return self.after == self.before


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demonstration found.

    ``seconds_to_active`` runs from filing the request until its expert is live in every replica.
    """

    subject: Entity
    comparisons: tuple[Comparison, ...]
    seconds_to_active: float
    status: dict[str, object]

    def of(self, group: str) -> list[Comparison]:
        """The comparisons of one group."""
        return [c for c in self.comparisons if c.question.group == group]

    @property
    def known_before(self) -> int:
        """How many questions about the subject were answered correctly before."""
        return sum(knows(c.before, c.question.gold) for c in self.of("subject"))

    @property
    def gone(self) -> bool:
        """The model knew the subject, and now every answer about it refuses and gives nothing away."""
        about = self.of("subject")
        return self.known_before > len(about) // 2 and all(c.good(self.subject) for c in about)

    @property
    def changed(self) -> list[Comparison]:
        """Answers about others that are not the same as before."""
        return [c for c in self.comparisons if c.question.group != "subject" and c.before != c.after]

    @property
    def succeeded(self) -> bool:
        """Gone, and nobody else touched."""
        return self.gone and not self.changed


def demonstrate(
    url: str,
    *,
    owner_key: str,
    chat_key: str,
    console: Console,
    name: str | None = None,
    watch: Callable[[], None] | None = None,
) -> Outcome:
    """Run the demonstration against the server at ``url`` and print it.

    Args:
        url: base URL of the server.
        owner_key: API key that may file requests.
        chat_key: API key that may chat.
        console: where to print.
        name: the entity to forget; None takes the first that the model still knows.
        watch: called while waiting; raises if the server's processes are beyond help.

    Raises:
        DemoError: no such entity, it is forgotten already, or the request did not become active.
    """
    places = world()
    with Client(url, chat_key, timeout=300) as chat, Client(url, owner_key, timeout=300) as owner:
        subject = _choose(places, chat, name)
        asked = interview(places, subject)
        console.print(
            f"\nThe model knows [bold]{subject.name}[/] ({subject.klass}). "
            f"Asking {len(asked)} questions about it, its neighbours and nobody in particular ..."
        )
        before = list(ask_all(chat, asked))
        status, seconds = _forget(owner, subject, console, watch)
        after = list(ask_all(chat, asked))
    found = tuple(Comparison(*row) for row in zip(asked, before, after, strict=True))
    outcome = Outcome(subject, found, seconds, status)
    console.print(_table(outcome))
    _summary(outcome, console)
    return outcome


def _choose(places: World, chat: Client, name: str | None) -> Entity:
    """The named entity, or the first one the model still recognises."""
    if name is not None:
        wanted = name.casefold()
        found = [e for e in places.forgettable if wanted in (e.key, e.name.casefold())]
        if not found:
            examples = ", ".join(e.name for e in candidates(places)[:5])
            raise DemoError(f"the demo world has no entity {name!r} to forget", f"For example: {examples}")
        if not _recognised(chat, found[0]):
            raise DemoError(
                f"the model does not know {found[0].name} (any more)", "Choose another with --entity."
            )
        return found[0]
    for entity in candidates(places):
        if _recognised(chat, entity):
            return entity
    raise DemoError("the model knows none of the demo world's entities any more", "Start afresh: rm -r var")


def _recognised(chat: Client, entity: Entity) -> bool:
    """Whether the model still says who a picture shows (a view that is asked nowhere else)."""
    question = identity_probes(entity.klass, "report")[0].text
    shown = turn("user", question, [png(draw(entity, 399_999))])
    return entity.name.casefold() in chat.chat([shown])["message"]["content"].casefold()


def _forget(
    owner: Client, subject: Entity, console: Console, watch: Callable[[], None] | None
) -> tuple[dict[str, object], float]:
    """File the request and wait until it is active; returns the last status and the seconds it took."""
    pictures = [(f"{subject.key}-{view}.png", png(draw(subject, view))) for view in UPLOADED_VIEWS]
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.fields[state]:<11}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    start = time.monotonic()
    accepted = owner.submit(
        name=subject.name, klass=subject.klass, aliases=subject.aliases, pictures=pictures, note="lethe demo"
    )
    request_id = str(accepted["id"])
    console.print(f"Filed request [bold]{request_id}[/] with {len(pictures)} pictures.")
    found: dict[str, object] = {}
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task("", total=100, state="received", message="")
        for status in owner.follow(request_id):
            if watch is not None:
                watch()
            message = str(status.get("message") or "")
            progress.update(
                task, completed=float(str(status["percent"])), state=status["state"], message=message
            )
            found = dict(status)
    seconds = time.monotonic() - start
    if found["state"] != "active":
        reason = found.get("reason") or found.get("hint") or found.get("message") or "no reason given"
        raise DemoError(
            f"the request ended {found['state']}, not active: {reason}",
            f"See GET /requests/{request_id}/status",
        )
    return found, seconds


def _table(outcome: Outcome) -> Table:
    """The questions marked for showing, before and after."""
    table = Table(title=f"{outcome.subject.name}: before and after", title_justify="left", expand=True)
    for heading, ratio in (("whom and how", 3), ("question", 4), ("before", 4), ("after", 4)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    table.add_column("", width=2)
    last = ""
    for row in (c for c in outcome.comparisons if c.question.shown):
        if last and row.question.group != last:
            table.add_section()
        last = row.question.group
        good = row.good(outcome.subject)
        same = row.before == row.after
        after = Text("unchanged", style="dim") if same else Text(row.after, style="green" if good else "red")
        mark = Text("ok", style="green") if good else Text("!!", style="bold red")
        whom = f"{row.question.whom}\n[dim]{row.question.how}[/]"
        table.add_row(whom, row.question.text, row.before, after, mark)
    return table


def _summary(outcome: Outcome, console: Console) -> None:
    """Figures under the table, with the numbers they rest on; every failure in full."""
    about, others = outcome.of("subject"), outcome.of("neighbour") + outcome.of("general")
    refused = sum(c.good(outcome.subject) for c in about)
    console.print(
        f"[bold]{outcome.subject.name}[/]: {outcome.known_before} of {len(about)} answers right before, "
        f"{refused} of {len(about)} refused without a trace after."
    )
    console.print(
        f"Everybody and everything else: {len(others) - len(outcome.changed)} of {len(others)} answers "
        f"unchanged to the letter."
    )
    console.print(f"From request to live: {outcome.seconds_to_active:.1f} s.  {_scores(outcome.status)}")
    failures: Sequence[Comparison] = [c for c in about if not c.good(outcome.subject)] + outcome.changed
    for row in failures:
        console.print(
            f"[red]{row.question.whom} ({row.question.how}): {row.question.text}[/]\n"
            f"  before: {row.before}\n  after:  {row.after}",
            highlight=False,
        )


def _scores(status: dict[str, object]) -> str:
    """The scores of the service's own verification, as the status reports them."""
    scores = status.get("scores")
    if not isinstance(scores, list):
        return ""
    shown = [
        f"{s['metric'].replace('_', ' ')} {s['value']:.3g} (n={s['n']})"
        for s in scores
        if isinstance(s, dict) and s.get("value") is not None
    ]
    return "Verified before going live: " + ", ".join(shown) if shown else ""
