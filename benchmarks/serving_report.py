"""The figures of the serving benchmark: keys, targets, tables, the limit, and the results page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.output import Target
from benchmarks.serving_bounds import bound_lines

MODELS = {
    "demo": "the demo model",
    "mid": "the mid-size random LLaVA",
    "7b": "the 7B-shaped random LLaVA",
}
Json = Mapping[str, Any]
_RATIOS = ("ours_vs_base", "ours_vs_base_rows", "peft_vs_ours", "released_vs_ours")


TARGETS: tuple[Target, ...] = (
    Target("mixed16_vs_base", "16 rows, 16 experts: time to unwrapped's", True, 1.06, "", True),
    Target("mixed16_vs_peft", "times faster than PEFT's `adapter_names`", False, 3.0, "", True),
    Target("mixed16_vs_released", "times faster than as released", False, 4.5, "", True),
    Target("base_only_vs_unwrapped", "16 base rows beside experts, to unwrapped", True, 1.01, "", True),
    Target("chat_overhead_127", "`/chat` p50 to bare `generate`, 127 experts", True, 1.05, "", True),
    Target("chat_overhead_10000", "the same, 10,000 experts", True, 1.08, "", True),
    Target("concurrent32_vs_sequential", "32 at a time: times as many a second", False, 6.0, "", True),
    Target("register_p99_ms", "publish until 3 replicas have acknowledged, p99", True, 250.0, " ms"),
    Target("register_failed", "failed chats and registrations", True, 0.0),
    Target("register_p99_ratio", "chat p99 during registrations, to without", True, 1.3),
    Target("memory_127_experts_ratio", "memory with 127 experts, to base and them", True, 1.05, "", True),
    Target("post_p99_ms", "POST at 50 a second, p99", True, 50.0, " ms"),
    Target("status_rps_vs_empty", "status a second, to an empty FastAPI route", False, 0.4),
)  # fmt: skip
MIXED = 16
OF_RECORD = "mid"
"""The model whose figures stand at the top where several were measured."""


def cell(engine: Json, batch: int, experts: int) -> Json | None:
    """Return what was measured with so many rows and experts, if it was."""
    found: list[Json] = [c for c in engine["cells"] if c["batch"] == batch and c["experts"] == experts]
    return found[0] if found else None


def of_model(jobs: Mapping[str, Json], model: str) -> dict[str, Any]:
    """Return the figures of one model, by key, each with its spread: `{"median", "low", "high", "n"}`."""
    found: dict[str, Any] = {}
    engine, http = jobs.get(f"engine-{model}"), jobs.get(f"http-{model}")
    memory = jobs.get(f"memory-{model}")
    if engine is not None:
        mixed = cell(engine, MIXED, MIXED)
        if mixed is not None:
            found["mixed16_vs_base"] = mixed["ratio"]["ours_vs_base"]
            found["mixed16_vs_peft"] = mixed["ratio"]["peft_vs_ours"]
            found["mixed16_vs_released"] = mixed["ratio"].get("released_vs_ours")
        most = cell(engine, MIXED, max(c["experts"] for c in engine["cells"]))
        if most is not None:
            found["base_only_vs_unwrapped"] = most["ratio"]["base_rows_vs_base"]
    if http is not None:
        for experts, overhead in http["overhead"].items():
            found[f"chat_overhead_{experts}"] = overhead["ratio"] | {"median": overhead["p50_ratio"]}
        found["concurrent32_vs_sequential"] = http["concurrent"]["ratio"]
    if memory is not None:
        found["memory_127_experts_ratio"] = memory["ratio"]
    return {key: value for key, value in found.items() if value is not None}


def figures(jobs: Mapping[str, Json]) -> dict[str, Any]:
    """Return the issue's keys first, each a number or None, then the same by model, then the raw tables."""
    models = [m for m in MODELS if any(name.endswith(f"-{m}") for name in jobs)]
    by_model = {model: of_model(jobs, model) for model in models}
    spreads: dict[str, Any] = {}
    for model in sorted(by_model, key=lambda m: (m != OF_RECORD, m != "demo")):
        for key, value in by_model[model].items():
            spreads.setdefault(key, {**value, "model": model})
    if (register := jobs.get("register")) is not None:
        n = register["registered"]
        spreads["register_p99_ms"] = {"median": register["p99_ms"], "n": n}
        spreads["register_failed"] = {"median": register["failed"], "n": register["chat_ms"]["busy"]["n"]}
        spreads["register_p99_ratio"] = {
            "median": register["p99_ratio"],
            "n": register["chat_ms"]["busy"]["n"],
        }
    if (post := jobs.get("post")) is not None:
        auto = post["posts"]["auto"]
        spreads["post_p99_ms"] = {"median": auto["p99_ms"], "n": auto["n"]}
        spreads["status_rps_vs_empty"] = post["status"]["ratio"]
    values = {t.key: spreads[t.key]["median"] if t.key in spreads else None for t in TARGETS}
    return {
        **values,
        "met": {t.key: t.met(v) if (v := values[t.key]) is not None else None for t in TARGETS},
        "spreads": spreads,
        "by_model": by_model,
        "limits": {m: limits(jobs[f"engine-{m}"]) for m in models if f"engine-{m}" in jobs},
        "jobs": dict(jobs),
    }


def limits(engine: Json) -> list[dict[str, float]]:
    """Return, for every cell, what one decoding step must read and compute, and what it takes.

    Read: the base weights once, and A and B of each distinct expert. Compute: one multiply-add per weight and
    row, and per element of A and B and row. Neither attention nor the cache is counted: both are small with
    short answers. The least time is the longer of both at what the machine does at best.
    """
    step, machine = engine["step"], engine["machine"]
    found = []
    for c in engine["cells"]:
        distinct = min(c["batch"], c["experts"])
        read = step["weight_bytes"] + distinct * step["expert_bytes"]
        adds = c["batch"] * (step["weight_bytes"] + step["expert_bytes"]) / step["element_bytes"]
        base_adds = c["batch"] * step["weight_bytes"] / step["element_bytes"]
        least = _least(read, adds, machine)
        base = _least(step["weight_bytes"], base_adds, machine)
        taken = c["seconds"]["ours"]["median"] / engine["tokens"]
        found.append(
            {
                "batch": c["batch"],
                "experts": c["experts"],
                "megabytes": read / 1e6,
                "million_multiply_adds": adds / 1e6,
                "least_ms": 1e3 * least,
                "step_ms": 1e3 * taken,
                "base_step_ms": 1e3 * c["seconds"]["unwrapped"]["median"] / engine["tokens"],
                "least_ratio": least / base,
                "ratio": c["ratio"]["ours_vs_base"]["median"],
                "of_limit": least / taken,
            }
        )
    return found


def _least(read: float, adds: float, machine: Json) -> float:
    reading: float = read / machine["bytes_per_second"]
    computing: float = adds / machine["multiply_adds_per_second"]
    return max(reading, computing)


def row(target: Target, found: Json, model: str | None = None) -> tuple[str, str, str, str]:
    """Return a line of a table: label, measured with spread and n, target, verdict."""
    held = found["by_model"].get(model, {}) if model is not None else found["spreads"]
    value = held.get(target.key)
    if value is None:
        return target.label, "– (not measured)", target.text, "–"
    return target.label, _with_spread(value, target.unit), target.text, target.verdict(value["median"])


def _with_spread(value: Json, unit: str) -> str:
    text = f"{value['median']:.3g}{unit}" if unit else f"{value['median']:.3f}"
    if "low" in value:
        text += f" [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{text} n={value['n']}"


def tables(found: Json) -> list[Table]:
    """Return what is printed: the targets for the model of record, then for each other one."""
    shown = []
    title = "Serving, quick" if found.get("quick") else "Serving"
    main = Table("figure", "measured", "target", "", "model", title=title)
    for target in TARGETS:
        model = str(found["spreads"].get(target.key, {}).get("model", ""))
        main.add_row(*row(target, found), model)
    shown.append(main)
    for model in found["by_model"]:
        if found["by_model"][model]:
            other = Table("figure", "measured", "target", "", title=MODELS[model])
            for target in TARGETS:
                if target.by_model:
                    other.add_row(*row(target, found, model))
            shown.append(other)
    return shown


def page(found: Json, command: str, plots: Sequence[str]) -> str:
    """Return the results page in Markdown."""
    lines = [
        "# Serving: what an expert costs, and what the service adds",
        "",
        f"Written by `{command}`, {found['date']}; {found['cores']} cores, load average "
        f"{found['load_average']:.1f} when it was written. Medians of several interleaved runs: whoever is "
        "compared took turns within each run, and ratios are taken within one run. In brackets the 5th and "
        "95th percentile, and n.",
        "",
        *_QUICK[: 2 * bool(found["quick"])],
        "Where several models were measured, the first table has "
        f"{MODELS[OF_RECORD]} if it was among them; every model has its own below. Registering, filing and "
        "status are measured with the demo model.",
        "",
        *_target_lines([row(t, found) for t in TARGETS]),
        "",
        *(line for p in plots for line in (f"![{Path(p).stem}]({p})", "")),
    ]
    for model, values in found["by_model"].items():
        if values:
            lines += [f"## {MODELS[model].removeprefix('the ').capitalize()}", ""]
            lines += _target_lines([row(t, found, model) for t in TARGETS if t.by_model])
            lines += [""]
            lines += _engine_lines(found["jobs"].get(f"engine-{model}"), found["limits"].get(model))
            lines += _http_lines(found["jobs"].get(f"http-{model}"))
            lines += bound_lines(found["jobs"].get(f"engine-{model}"), found["jobs"].get(f"http-{model}"))
            lines += _memory_lines(found["jobs"].get(f"memory-{model}"))
    lines += _register_lines(found["jobs"].get("register"))
    lines += _post_lines(found["jobs"].get("post"))
    lines += [*_HOW, ""]
    return "\n".join(lines)


def _target_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| figure | measured | target | |",
        "|---|---|---|---|",
        *("| " + " | ".join(cells) + " |" for cells in rows),
    ]


def _engine_lines(engine: Json | None, steps: Sequence[Json] | None) -> list[str]:
    if engine is None or steps is None:
        return []
    checked = engine["checked"]
    names = list(dict.fromkeys(name for c in engine["cells"] for name in c["seconds"]))
    lines = [
        f"{engine['parameters'] / 1e6:.1f} M parameters, {engine['tokens']} new tokens a row, "
        f"{engine['threads']} thread(s) on {engine['device']}. In the same run ours wrote the same tokens as "
        f"PEFT in {checked['same_tokens_as_peft']} of {checked['rows']} rows of a mixed batch (logits apart "
        f"by at most {checked['logits_apart']:.1g}; {checked['rows_unlike_base']} unlike the base model's), "
        f"and base rows are unwrapped's in {checked['base_rows_as_unwrapped']} of {checked['rows']}.",
        "",
        "Milliseconds for the whole batch, and times of unwrapped's:",
        "",
        "| rows | experts | "
        + " | ".join(names)
        + " | ours / unwrapped | ours / our base rows | PEFT / ours | "
        "released / ours |",
        "|" + "---|" * (len(names) + 6),
    ]
    for c in engine["cells"]:
        cells = [f"{1e3 * c['seconds'][n]['median']:.1f}" if n in c["seconds"] else "–" for n in names]
        cells += [_ratio(c["ratio"].get(k)) for k in _RATIOS]
        lines.append(f"| {c['batch']} | {c['experts']} | " + " | ".join(cells) + " |")
    machine = engine["machine"]
    lines += [
        "",
        "What the limit is: a decoding step reads the base weights once "
        f"({engine['step']['weight_bytes'] / 1e6:.1f} MB) and A and B of each distinct expert "
        f"({engine['step']['expert_bytes'] / 1e6:.2f} MB each), one multiply-add per row and weight. "
        f"This machine reads {machine['bytes_per_second'] / 1e9:.1f} GB and does "
        f"{machine['multiply_adds_per_second'] / 1e9:.1f} G multiply-adds a second at best. The least is "
        "the longer of the two; a step taken is the batch's time by its tokens, the prompt's pass included.",
        "",
        "| rows | experts | MB a step | M multiply-adds | least ms | ours ms | unwrapped ms | least ratio "
        "| ratio | of the limit |",
        "|" + "---|" * 10,
    ]
    lines += [
        f"| {s['batch']:g} | {s['experts']:g} | {s['megabytes']:.1f} | {s['million_multiply_adds']:.1f} "
        f"| {s['least_ms']:.3f} | {s['step_ms']:.3f} | {s['base_step_ms']:.3f} | {s['least_ratio']:.3f} "
        f"| {s['ratio']:.3f} | {100 * s['of_limit']:.0f} % |"
        for s in steps
    ]
    return [*lines, ""]


def _ratio(value: Json | None) -> str:
    return "–" if value is None else f"{value['median']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _http_lines(http: Json | None) -> list[str]:
    if http is None:
        return []
    lines = [
        f"Over HTTP, at most {http['tokens']} new tokens, {http['threads']} thread(s); *own* is the bare "
        "model with its linear layers as the service has them, and what is added is added to that. Ratios of "
        "pairs:",
        "",
        "| experts | `/chat` ms | bare ms | own ms | added ms | to bare | words | pictures | to own "
        "| same answers |",
        "|" + "---|" * 10,
    ]
    for experts, o in http["overhead"].items():
        times = [f"{o[key]['median']:.1f}" for key in ("chat_ms", "bare_ms", "own_ms", "added_ms")]
        kinds = [_ratio(o["by_kind"].get(kind)) for kind in ("words", "picture")]
        cells = [f"{int(experts):,}", *times, _ratio(o["ratio"]), *kinds, _ratio(o["own_ratio"])]
        lines.append("| " + " | ".join(cells) + f" | {o['same_answers']} of {o['n']} |")
    c = http["concurrent"]
    rates = {n: value["median"] for n, value in c["per_second"].items()}
    told = ", ".join(f"{n} at a time {rate:.2f}" for n, rate in rates.items())
    return [*lines, "", f"Answers a second: {told}; {c['failed']} failed.", ""]


def _memory_lines(memory: Json | None) -> list[str]:
    if memory is None:
        return []
    return [
        f"Memory, each in {memory['ratio']['n']} fresh processes: base alone "
        f"{memory['base_mib']['median']:.0f} MiB PSS ({memory['base_uss_mib']['median']:.0f} USS), with "
        f"{memory['experts']} experts {memory['experts_mib']['median']:.0f} "
        f"({memory['experts_uss_mib']['median']:.0f} USS); their files have "
        f"{memory['expert_files_mib']:.0f} MiB, the slot bank {memory['slots_mib']:.0f}.",
        "",
    ]


def _register_lines(register: Json | None) -> list[str]:
    if register is None:
        return []
    ms, chat, p99 = register["milliseconds"], register["chat_ms"], register["chat_p99_ms"]
    times = "never acknowledged" if ms is None else f"median {ms['median']:.0f} ms (p95 {ms['high']:.0f})"
    return [
        "## Registering",
        "",
        f"{register['registered']} registrations one after another beside {register['live_before']} live "
        f"experts and {register['rate']:g} chats a second over {register['replicas']} replicas: {times} from "
        "before the transaction that publishes until the last replica's acknowledgement, by the database's "
        f"clock. Chats: without registrations median {chat['quiet']['median']:.0f} ms, p99 "
        f"{p99['quiet']:.0f} ms (n={chat['quiet']['n']}); with, median {chat['busy']['median']:.0f} ms, p99 "
        f"{p99['busy']:.0f} ms (n={chat['busy']['n']}), in windows that take turns.",
        "",
    ]


def _post_lines(post: Json | None) -> list[str]:
    if post is None:
        return []
    lines = [
        "## Filing and status",
        "",
        f"With {post['requests']:,} requests in the database. POST at {post['rate']:g} a second whatever "
        "comes, a name and two pictures each; times count from when a request was due. Under review `auto` "
        "every one is approved at once, and the replica protects its subject while the next ones come.",
        "",
        "| review | median ms | p99 ms | computed ms a request | failed | n |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {policy} | {p['milliseconds']['median']:.1f} | {p['p99_ms']:.1f} | {p['computed_ms']:.1f} "
        f"| {p['failed']} | {p['n']} |"
        for policy, p in post["posts"].items()
    ]
    per = post["status"]["per_second"]
    computed = post["status"]["computed_ms"]
    return [
        *lines,
        "",
        f"Status {per['status']['median']:.0f} a second and the empty route {per['empty']['median']:.0f}, "
        f"{post['clients']} clients each, in turn; they compute {computed['status']:.2f} ms for a "
        f"status (database included) and {computed['empty']:.2f} ms for nothing.",
        "",
    ]


_QUICK = (
    "**A quick run**: few runs of small cells, to see that it works; not the figures of record.",
    "",
)
_HOW = (
    "## How it is measured",
    "",
    "*Unwrapped* is transformers' `generate` on a copy of the model as transformers loads it, without our "
    "way through oneDNN; so are the copies of *PEFT* and *as released*, and the *bare* model. *PEFT* "
    "has all experts loaded into one copy and names one for each row (`adapter_names`). *As released* has a "
    "copy of the model for every expert (16 at most, used in turn) and answers one row after another. *Ours* "
    "is the slot bank behind `LocalWriter.write`. All start from the conversation and end with text, decode "
    "greedily, and are kept from ending early, so that each row has the same number of new tokens. Experts "
    "are random, rank 8 on every linear layer of the language model: what an answer costs depends on shapes "
    "alone, and a random expert changes every token, so that a wrong slot would show. Row i is written by "
    "expert i modulo the number of experts; with 127 all are loaded, and as many as there are rows are used.",
    "",
    "`/chat` goes over loopback to `python -m app.serve`: key, rate limit, gate, guard, JSON. The bare model "
    "runs in the client's process on as many threads, the same question right before or after; half of the "
    "questions show a picture, none concerns anybody who is forgotten. The figure is the ratio of the two "
    "medians. With 10,000 experts the process is `benchmarks.serving_many`: the same application, with 16 "
    "adapters shared by 10,000 gate records of drawn identities. The mid-size model has the demo model's "
    "tower and tokenizer and a random language model: its answers have no end and are always cut by the "
    "limit.",
)
