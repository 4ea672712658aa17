"""What the service adds to an answer, and what batching gives back: `/chat` over HTTP beside `generate`."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from rich.console import Console

from app.embedded.demo.interview import on_the_wire
from app.lumoe.mllm import MLLM
from app.lumoe.onednn import leave_to_torch, use_onednn
from app.lumoe.types import Conversation, pictures_of
from benchmarks.farm import ROOT
from benchmarks.gate_traffic import QUICK, ordinary_items
from benchmarks.serving_figures import Spread, ratios, spread
from benchmarks.serving_load import client, closed, failed
from benchmarks.serving_many import make_records
from benchmarks.serving_models import ModelName, load, source_of
from benchmarks.serving_stack import House, enrol, house, write_experts

FEW, MANY = 127, 10_000
CONCURRENT = 32


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """What is measured of one model."""

    model: ModelName
    tokens: int
    questions: int
    concurrent: int
    """Requests in each of the two ways, one after another and 32 at a time."""
    runs: int
    many: bool = True
    threads: int = 1


class Bare:
    """The model without the service: processor, transformers' `generate`, text. One row."""

    def __init__(self, mllm: MLLM, tokens: int) -> None:
        self._mllm, self._tokens = mllm, tokens

    def turn(self, way: str) -> None:
        """Have its linear layers as transformers loads them (`bare`), or as the service has them (`own`)."""
        (use_onednn if way == "own" else leave_to_torch)(self._mllm.network)

    @torch.inference_mode()
    def answer(self, conversation: Conversation) -> tuple[str, int]:
        """Return the answer and its number of tokens; pictures go through the tower every time."""
        mllm = self._mllm
        images = pictures_of([conversation])
        inputs = mllm.processor(
            text=[mllm.render(conversation)],
            images=images or None,
            return_tensors="pt",
            add_special_tokens=False,
        )
        output = mllm.model.generate(
            **inputs,
            max_new_tokens=self._tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=mllm.tokenizer.pad_token_id,
        )[0, inputs["input_ids"].shape[1] :].tolist()
        kept = list(itertools.takewhile(lambda token: token not in mllm.eos_ids, output))
        return mllm.decode(kept), len(kept)


def traffic(n: int) -> list[Conversation]:
    """Return n conversations of ordinary traffic, every other one with a picture; nobody is forgotten."""
    items = [item.conversation for item in ordinary_items(QUICK)]
    seen = [c for c in items if pictures_of([c])]
    words = [c for c in items if not pictures_of([c])]
    turns = [c for pair in zip(words, seen, strict=False) for c in pair]
    return turns[:n]


def measure(plan: HttpPlan, console: Console) -> dict[str, Any]:
    """Measure one model behind HTTP with 127 and with 10,000 experts."""
    torch.set_num_threads(plan.threads)
    mllm = load(plan.model)
    asked = traffic(plan.questions)
    bare = Bare(mllm, plan.tokens)
    overhead: dict[str, Any] = {}
    with _house(plan) as place:
        enrol(place, write_experts(place, mllm, FEW), mllm.fingerprint)
        with place.replica() as url:
            overhead[str(FEW)] = asyncio.run(_overhead(url, place, bare, asked, plan))
            _say(console, plan, FEW, overhead[str(FEW)])
            concurrent = asyncio.run(_concurrent(url, place, asked, plan))
            console.print(
                f"{plan.model}: {CONCURRENT} at a time {concurrent['ratio']['median']:.2f} times as many"
            )
    if plan.many:
        records = ROOT / "serving" / f"records-{mllm.fingerprint[:12]}"
        make_records(mllm, MANY, records)
        with _house(plan) as place:
            given = ("--experts", str(MANY), "--records", str(records.resolve()))
            with place.replica(command=("benchmarks.serving_many", *given)) as url:
                overhead[str(MANY)] = asyncio.run(_overhead(url, place, bare, asked, plan))
                _say(console, plan, MANY, overhead[str(MANY)])
    return {
        "model": plan.model,
        "tokens": plan.tokens,
        "threads": plan.threads,
        "overhead": overhead,
        "concurrent": concurrent,
    }


@contextmanager
def _house(plan: HttpPlan) -> Iterator[House]:
    with (
        tempfile.TemporaryDirectory(prefix="lethe-serving-") as folder,
        house(Path(folder), threads=plan.threads, model=source_of(plan.model)) as place,
    ):
        yield place


def _say(console: Console, plan: HttpPlan, experts: int, found: dict[str, Any]) -> None:
    console.print(
        f"{plan.model}, {experts:,} experts: /chat {found['chat_ms']['median']:.1f} ms, bare "
        f"{found['bare_ms']['median']:.1f} ms, ratio {found['ratio']['median']:.3f}; "
        f"{found['same_answers']} of {found['n']} answers the same"
    )


def _body(conversation: Conversation, tokens: int) -> dict[str, Any]:
    return {"messages": on_the_wire(conversation), "max_tokens": tokens}


async def _overhead(
    url: str, place: House, bare: Bare, asked: Sequence[Conversation], plan: HttpPlan
) -> dict[str, Any]:
    """Ask each question over HTTP and bare, in both ways, one after the other; who is first takes turns."""
    ways = ("chat", "bare", "own")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    tokens: list[int] = []
    kinds: list[str] = []
    same = 0
    bodies = [_body(c, plan.tokens) for c in asked]
    async with client(url, place.key) as http:
        for run in range(-1, plan.runs):
            for i, (conversation, body) in enumerate(zip(asked, bodies, strict=True)):
                if run < 0 and i >= 4:
                    break
                first = (run + i) % len(ways)
                found: dict[str, str] = {}
                for way in ways[first:] + ways[:first]:
                    bare.turn(way)
                    began = time.perf_counter()
                    if way == "chat":
                        response = await http.post("/chat", json=body)
                        took = time.perf_counter() - began
                        response.raise_for_status()
                        found[way] = response.json()["message"]["content"]
                    else:
                        found[way], count = bare.answer(conversation)
                        took = time.perf_counter() - began
                    if run >= 0:
                        seconds[way].append(took)
                if run < 0:
                    continue
                tokens.append(count)
                kinds.append("picture" if pictures_of([conversation]) else "words")
                same += found["chat"] == found["bare"]
    figures = overhead_of(seconds["chat"], seconds["bare"], seconds["own"], kinds)
    return figures | {"same_answers": same, "tokens": spread(tokens).as_json()}


def overhead_of(
    chat: Sequence[float], alone: Sequence[float], own: Sequence[float], kinds: Sequence[str]
) -> dict[str, Any]:
    """Return what seconds of `/chat` and of the bare model come to: medians, and the ratio of the medians.

    `own` are the bare model's with its linear layers as the service has them. The ratio of each pair is given
    as well, over all and by kind of question.
    """
    by_kind = {
        kind: ratios(
            [c for c, k in zip(chat, kinds, strict=True) if k == kind],
            [a for a, k in zip(alone, kinds, strict=True) if k == kind],
        ).as_json()
        for kind in sorted(set(kinds))
    }
    whole, bare = _ms(chat), _ms(alone)
    return {
        "chat_ms": whole.as_json(),
        "bare_ms": bare.as_json(),
        "own_ms": _ms(own).as_json(),
        "added_ms": _ms([c - a for c, a in zip(chat, own, strict=True)]).as_json(),
        "p50_ratio": whole.median / bare.median,
        "ratio": ratios(chat, alone).as_json(),
        "own_ratio": ratios(chat, own).as_json(),
        "by_kind": by_kind,
        "n": len(chat),
    }


def _ms(seconds: Sequence[float]) -> Spread:
    return spread([1e3 * s for s in seconds])


async def _concurrent(
    url: str, place: House, asked: Sequence[Conversation], plan: HttpPlan
) -> dict[str, Any]:
    """Ask the same questions one after another and 32 at a time, in turn."""
    bodies = [_body(c, plan.tokens) for c in asked]
    rates: dict[int, list[float]] = {1: [], CONCURRENT: []}
    wrong = 0
    async with client(url, place.key) as http:

        async def chat(i: int) -> httpx.Response:
            return await http.post("/chat", json=bodies[i % len(bodies)])

        for run in range(-1, plan.runs):
            for clients in (1, CONCURRENT) if run % 2 else (CONCURRENT, 1):
                sent, seconds = await closed(chat, plan.concurrent, clients)
                wrong += failed(sent)
                if run >= 0:
                    rates[clients].append(len(sent) / seconds)
    return {
        "per_second": {str(n): spread(values).as_json() for n, values in rates.items()},
        "ratio": ratios(rates[CONCURRENT], rates[1]).as_json(),
        "failed": wrong,
        "n": plan.concurrent,
    }
