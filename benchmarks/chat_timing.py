"""What the time of an answer tells a stranger: `python -m benchmarks.chat_timing [--n 100] [--json FILE]`.

Starts the embedded stack, has one subject forgotten by an expert, stops the worker, and files a second one,
which is then refused by rule alone. Asks about both and about somebody else, in turn, whole and as streams,
over loopback, where times are told best. What tells the two kinds of refusal apart: the chance that of two
with the same wording (of any two, if they share none) the expert took longer, the area under the ROC
curve (0.5 tells nothing); and how many wordings are one kind's alone.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from app.client import Client, png
from app.embedded.home import Home
from app.embedded.supervisor import Stack
from app.lumoe.demo import Entity, draw, questions, world
from benchmarks.output import write_json
from benchmarks.request import UPLOADS, forget, subjects

EXPERT, INTERIM, ANSWER = "expert", "interim", "answer"


@dataclass
class Asked:
    """What one kind of question got: seconds to the end, seconds to the first text, and the answers."""

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def ask(http: httpx.Client, question: str, *, stream: bool, tokens: int) -> tuple[float, float, str]:
    """Return seconds to the end and to the first text, and the answer."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "stream": stream}
    began, first, text = time.perf_counter(), 0.0, ""
    with http.stream("POST", "/chat", json=body) as response:
        response.raise_for_status()
        if not stream:
            response.read()
            text = response.json()["message"]["content"]
        else:
            for line in response.iter_lines():
                if line.startswith('data: {"delta"'):
                    first = first or time.perf_counter() - began
                    text += json.loads(line[6:])["delta"]
    ended = time.perf_counter() - began
    return ended, first or ended, text


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it is so."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise TimeoutError("the subject was not protected in time")
        time.sleep(0.05)


def asked_about(entity: Entity) -> list[str]:
    """Return the text questions of the report split that say the name; no stage has seen them."""
    found = [qa.conversation for qa in questions(entity, "report", view=1)]
    named = [c[0].text for c in found if len(c) == 1 and not c[0].images and entity.name in c[0].text]
    return list(dict.fromkeys(named))


def run(n: int, tokens: int, console: Console) -> dict[str, Any]:
    """Measure on a fresh stack; return the figures."""
    with_expert, without = subjects(2)
    other = world().neighbours(with_expert, 1)[0]
    sets = {EXPERT: asked_about(with_expert), INTERIM: asked_about(without), ANSWER: asked_about(other)}
    with (
        tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder,
        Stack(Home(Path(folder)), port=0) as stack,
        Client(stack.url, stack.keys["owner"]) as owner,
    ):
        done = forget(owner, with_expert)
        console.print(f"{with_expert.name}: {done.state} after {done.seconds:.1f} s")
        worker = stack.child("worker")
        worker.send(signal.SIGSTOP)
        try:
            pictures = [(f"{view}.png", png(draw(without, view))) for view in UPLOADS]
            accepted = owner.submit(
                name=without.name, klass=without.klass, aliases=without.aliases, pictures=pictures
            )
            wait_for(lambda: owner.status(accepted["id"])["protected_at"] is not None)
            measured = {
                mode: measure(stack, sets, n, stream=mode == "stream", tokens=tokens)
                for mode in ("whole", "stream")
            }
        finally:
            worker.send(signal.SIGCONT)
    return {"n": n, "tokens": tokens, **{mode: figures(kinds) for mode, kinds in measured.items()}}


def measure(
    stack: Stack, sets: dict[str, list[str]], n: int, *, stream: bool, tokens: int
) -> dict[str, Asked]:
    """Ask n questions of each kind in turn, after a few that are not counted."""
    kinds = {kind: Asked() for kind in sets}
    headers = {"Authorization": f"Bearer {stack.keys['chat']}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=60) as http:
        for i in range(-8, n):
            for kind, texts in sets.items():
                ended, first, text = ask(http, texts[i % len(texts)], stream=stream, tokens=tokens)
                if i >= 0:
                    kinds[kind].seconds.append(ended)
                    kinds[kind].first.append(first)
                    kinds[kind].texts.append(text)
    return kinds


def figures(kinds: dict[str, Asked]) -> dict[str, Any]:
    """Return medians and spreads of each kind, and what tells the two kinds of refusal apart."""
    expert, interim = kinds[EXPERT], kinds[INTERIM]
    return {
        **{
            kind: {"seconds": spread(asked.seconds), "first": spread(asked.first)}
            for kind, asked in kinds.items()
        },
        "expert_or_interim": {
            "auc_seconds": auc(expert.seconds, interim.seconds, expert.texts, interim.texts),
            "auc_first": auc(expert.first, interim.first, expert.texts, interim.texts),
            "wordings_of_one_kind": len(set(expert.texts) ^ set(interim.texts)),
        },
    }


def auc(
    some: Sequence[float], others: Sequence[float], said: Sequence[str], others_said: Sequence[str]
) -> float:
    """Return the chance that one of `some` is larger than one of `others` with the same text (Mann, Whitney).

    Ties count half. Without a text in common, of any.
    """
    pairs = [
        (x, y, text == other)
        for x, text in zip(some, said, strict=True)
        for y, other in zip(others, others_said, strict=True)
    ]
    alike = [(x, y) for x, y, same in pairs if same] or [(x, y) for x, y, _ in pairs]
    return sum((x > y) + 0.5 * (x == y) for x, y in alike) / len(alike)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 5th and 95th percentile."""
    twentieths = statistics.quantiles(seconds, n=20)
    return {"median": statistics.median(seconds), "p5": twentieths[0], "p95": twentieths[-1]}


def show(found: dict[str, Any], console: Console) -> None:
    """Print what was measured."""
    for mode in ("whole", "stream"):
        table = Table(
            "kind", "ms, median (5 %, 95 %)", "first text, ms", title=f"{mode}, n = {found['n']} each"
        )
        for kind in (EXPERT, INTERIM, ANSWER):
            times, first = found[mode][kind]["seconds"], found[mode][kind]["first"]
            table.add_row(
                kind,
                f"{1e3 * times['median']:.1f} ({1e3 * times['p5']:.1f}, {1e3 * times['p95']:.1f})",
                f"{1e3 * first['median']:.1f}",
            )
        console.print(table)
        apart = found[mode]["expert_or_interim"]
        console.print(
            f"Expert or interim: AUC {apart['auc_seconds']:.3f} by time, {apart['auc_first']:.3f} by the "
            "first text; "
            f"{apart['wordings_of_one_kind']} wordings are one kind's alone."
        )


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=100, help="questions of each kind, whole and as streams")
    parser.add_argument("--tokens", type=int, default=64, help="max_tokens")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    console = Console()
    found = run(arguments.n, arguments.tokens, console)
    show(found, console)
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
