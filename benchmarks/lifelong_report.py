"""The lifelong benchmark's tables, targets and results page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

PAGE = Path("docs/benchmarks/lifelong.md")

_HEAD = (
    "method",
    "fq, worst row",
    "fq, mean",
    "mu, worst row",
    "mu_rel neighbours, worst",
    "degradation",
    "s / request (CPU)",
    "peak MB",
    "both modalities",
    "MIA AUC",
)
COLLAPSED = 0.5
"""A method whose utility, relative to the base model's, ends below this has collapsed."""
PAPER = dict.fromkeys(("ga", "graddiff", "kl", "npo"), "forget quality and utility") | {"po": "utility"}
"""What MLUBench's authors found lost after the last task (METHOD.md section 1)."""
FALLEN = 0.25
"""So has one that lost this much of an earlier request's forget quality."""


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Return what is printed: one table per sequence, and the targets."""
    made = []
    for name, part in _parts(found):
        table = Table(*_HEAD, title=f"{name}, orders {', '.join(part['orders'])}" + _mark(found))
        for method, m in part["methods"].items():
            table.add_row(method, *_cells(m))
        made.append(table)
        targets = Table("figure", "measured", "target", "", title=f"{name}: targets")
        for row in target_rows(part, found):
            targets.add_row(*row)
        made.append(targets)
    return made


def _parts(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    parts: list[tuple[str, Mapping[str, Any]]] = [(str(found["sequence"]), found)]
    if "entities" in found:
        parts.append(("entities", found["entities"]))
    return parts


def _mark(found: Mapping[str, Any]) -> str:
    return ", QUICK" if found["quick"] else ""


def _cells(m: Mapping[str, Any]) -> list[str]:
    plain = ("fq_final", "fq_final_mean", "mu_final", "mu_rel_neighbours_final", "degradation_max")
    return [
        *(_number(m[key]) for key in plain),
        f"{_number(m['seconds_per_request'], 1)} ({_number(m['cpu_seconds_per_request'], 1)})",
        _number(m["peak_mb"], 0),
        _number(m["both_modalities"]),
        _number(m["mia_auc"]),
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def target_rows(part: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the issue's targets as (figure, measured, target, verdict)."""
    methods = part["methods"]
    ours, released, gold = (methods.get(name) for name in ("lethe", "lumoe_released", "gold"))
    real = found["course"] != "demo"
    rows = []
    if ours:
        fq, rel = (0.98, 0.98) if real else (0.99, 0.99)
        rows += [
            _least("ours: forget quality, worst row of the last column", ours["fq_final"], fq),
            _least("ours: mu_rel on same-class neighbours, worst row", ours["mu_rel_neighbours_final"], rel),
            _most("ours: degradation of any earlier request", ours["degradation_max"], 0.0),
            _least("ours: both modalities suppressed", ours["both_modalities"], 0.98),
        ]
    if ours and released and ours["seconds_per_request"]:
        ratio = times_faster(ours, released)
        better = ours["fq_final"] >= released["fq_final"]
        label = "ours: times faster than LUMoE as released, per request"
        rows.append(_least(label + ("" if better else " (at LOWER forget quality)"), ratio, 10.0))
    if ours and gold and ours["seconds_per_request"]:
        reduced = any(note.get("reduced") for o in gold["orders"].values() for note in o["notes"])
        why = " (gold REDUCED: no figure)" if reduced else ""
        for key, label in (("fq_final_mean", "forget quality"), ("mu_final_mean", "utility")):
            apart = abs(gold[key] - ours[key])
            rows.append(_most(f"ours against gold: {label} apart{why}", apart, 0.01))
        ratio = times_faster(ours, gold)
        rows.append(_least(f"ours: times faster than retraining, per request{why}", ratio, 50.0))
    for name, m in methods.items():
        if name not in ("lethe", "gold", "lumoe_released"):
            rows.append((f"{name}: does it collapse?", *_collapse(name, m)))
    return rows


def times_faster(ours: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the other's seconds per request over ours: CPU seconds where both are known.

    Seconds by the clock also count what else ran on the machine.
    """
    known = all(m.get("cpu_seconds_per_request") for m in (ours, other))
    key = "cpu_seconds_per_request" if known else "seconds_per_request"
    return float(other[key]) / float(ours[key])


def _least(label: str, value: float | None, limit: float) -> tuple[str, str, str, str]:
    verdict = "–" if value is None else "pass" if value >= limit - 1e-12 else "FALLS SHORT"
    return label, _number(value), f">= {limit:g}", verdict


def _most(label: str, value: float | None, limit: float) -> tuple[str, str, str, str]:
    verdict = "–" if value is None else "pass" if value <= limit + 1e-12 else "FALLS SHORT"
    return label, _number(value), f"<= {limit:g}", verdict


def _collapse(name: str, m: Mapping[str, Any]) -> tuple[str, str, str]:
    """Say whether utility is lost, or forget quality that an earlier request had, as the paper found."""
    fell = max((f for o in m["orders"].values() for f in _falls(o["fq"])), default=0.0)
    mu = m["mu_rel_final"]
    text = f"mu_rel {_number(mu)} (worst row), largest fall of an earlier fq {fell:.3f}"
    lost = ["forget quality"] if fell > FALLEN else []
    lost += ["utility"] if mu is not None and mu < COLLAPSED else []
    paper = PAPER.get(name)
    verdict = f"yes: {' and '.join(lost)}" if lost else "no"
    return (
        text,
        f"the paper: {paper or 'not measured'}",
        f"{verdict}, unlike the paper" if paper and not lost else verdict,
    )


def _falls(matrix: Sequence[Sequence[float | None]]) -> list[float]:
    """Return by how much each row ended below where it began; 0 where it did not."""
    rows = [[value for value in row if value is not None] for row in matrix]
    return [max(0.0, row[0] - row[-1]) for row in rows if row]


def page(found: Mapping[str, Any], command: str, plots: Sequence[str]) -> str:
    """Return the results page in Markdown."""
    lines = [
        "# Lifelong unlearning: who degrades",
        "",
        f"Written by `{command}`, {found['date']}; {found['cells_seconds']:.0f} s of work. {found['notes']}",
        "",
    ]
    if found["quick"]:
        lines += [
            f"**A small version** (`--quick`): {_sizes(found)}. Its rows rest on few questions,",
            "weight editing has few rows to learn from, and the gold standard is trained on a fraction",
            "of its recipe, so that its figures only say that it runs.",
            "The tables of record come from a full run.",
            "",
        ]
    if found.get("remark"):
        lines += [str(found["remark"]), ""]
    for name, part in _parts(found):
        lines += _section(name, part, found, [p for p in plots if p.startswith(f"lifelong_{name}_")])
    return "\n".join([*lines, _METHOD])


def _sizes(found: Mapping[str, Any]) -> str:
    per = found["subjects"]
    return f"{len(per)} requests of {min(per)} to {max(per)} subjects"


def _section(name: str, part: Mapping[str, Any], found: Mapping[str, Any], plots: Sequence[str]) -> list[str]:
    title = f"{len(part['requests'])} tasks" if name == "tasks" else "Single entities, one after another"
    lines = [
        f"## {title}",
        "",
        f"{len(part['requests'])} requests, {sum(part['subjects'])} subjects; "
        f"orders {', '.join(part['orders'])}.",
        "",
        "| " + " | ".join(_HEAD) + " |",
        "|" + "---|" * len(_HEAD),
        *("| " + " | ".join([f"`{method}`", *_cells(m)]) + " |" for method, m in part["methods"].items()),
        "",
        "| figure | measured | target | |",
        "|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in target_rows(part, found)),
        "",
    ]
    if len(part["requests"]) <= 8:
        for order in part["orders"]:
            lines += _matrices(order, part["methods"])
    return [*lines, *(f"![{Path(p).stem}]({p})" for p in plots), ""]


def _matrices(order: str, methods: Mapping[str, Any]) -> list[str]:
    lines = [f"### Order {order}: forget quality / model utility after unlearning k", ""]
    for method, m in methods.items():
        o = m["orders"].get(order)
        if o is None:
            continue
        last = len(o["columns"]) == 1
        heads = ["after the last" if last else f"after {k}" for k in o["columns"]]
        lines += [f"| `{method}` | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
        for row, fq, mu in zip(o["rows"], o["fq"], o["mu"], strict=True):
            cells = [
                "" if f is None else f"{_number(f, 2)} / {_number(u, 2)}" for f, u in zip(fq, mu, strict=True)
            ]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


_METHOD = """## How it is measured

All methods get the same requests, the same lessons (a subject's questions with the owner's pictures and
by name, wordings of the fit split; retain lessons about protected entities and about nobody) and the same
seeds, each in a process of its own. *Forget quality* and *model utility* are the mean of s/2 on held-out
pictures and wordings, against the gold answers; forget questions that the untouched model cannot answer
are left out, since what it does not know cannot be forgotten. `mu_rel` counts only what the untouched
model answers. *Degradation* is the largest |P(M_t, t) - P(M_T, t)| of any earlier request, in forget
quality or utility. *Both modalities* is the share of facts refused cleanly with a picture and by name.
*MIA* is the AUC of the loss attack under whoever would answer: training data of the forgotten against
questions of the same form about identities that no model has seen; .5 is chance, and far below .5 tells
as much as far above. *Peak MB* is the process's peak while a request is carried out, the base model
included.

- `ga graddiff kl po npo simnpo dpo` edit one model's language part, request after request: AdamW, rate
  1e-5 for a model 4,096 wide, carried over in proportion to 1/width as our own recipe does, 5 epochs,
  batches of 16. Losses and their sources: `benchmarks/lifelong_losses.py`.
- `lumoe_released`: rank 32 on all linears of the language model, dropout .3, 5 epochs, batches of 4, rate
  5e-5 at width 4,096 (carried over alike), cross-entropy on refusals alone, no pictures in training, one
  copy of the model per adapter. The released gate asks a closed hosted model; here its router reads the
  label stored with each question, as an oracle. Its utility is the base model's by construction.
- `lethe`: the worker's stages prepare, train and calibrate for every subject, one expert each, and the
  real router. Experts that `python -m benchmarks.farm` trained are taken from there with their seconds;
  they were trained in the order A to D. The time of the stage `verify` is left
  out, and that of the initial expert, which is made once per base model. With `--verify` experts are
  verified and trained once more where they fall short, as the worker does; that training counts.
- `gold`: the base model's recipe run again without everybody forgotten, once, after the last request.
"""
