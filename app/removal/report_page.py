"""The report as an HTML page: readable by people, printable, without any script."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; } th[scope=row] { width: 12rem; font-weight: 500; }
table + table { margin-top: 1.2rem; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ok { color: #18794e; } .bad { color: #cd2b31; }
.box { border: 1px solid currentColor; padding: .2rem 1rem; }
code, td { overflow-wrap: anywhere; }
footer { margin-top: 3rem; font-size: .9rem; opacity: .8; }
@media (prefers-color-scheme: dark) { .ok { color: #4cc38a; } .bad { color: #ff6369; } }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Allows the page's own style sheet and nothing else."""

Node = Mapping[str, Any]  # a JSON object of the report


def page(report: Node) -> str:
    """Render a report as `ReportService.report` returns it; every value is escaped."""
    request = report["request"]
    parts = [
        _short(report),
        _asked(report),
        _findings("What the model knew", report, "known", _knew(report)),
        _findings("What it says now", report, "subject", ""),
        _examples(report["before_and_after"]),
        _findings("What happened to others", report, "others", ""),
        _attacks(report["attacks"]),
        _again(report["measured_again"]),
        _not_claimed(report["not_claimed"]),
        _manifest(report["exclusion_manifest"]),
        _technical(report),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Removal report {escape(str(request["id"]))}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Removal report</h1>
<p>Request <code>{escape(str(request["id"]))}</code>, as of {_when(report["generated_at"])}.</p>
{"".join(part for part in parts if part)}
<footer>{escape(str(report["scope"]))}</footer>
</body>
</html>
"""


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ["".join(_cell(cell) for cell in row) for row in rows]
    return f"<table>\n<tr>{top}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def _facts(rows: Iterable[tuple[str, object]]) -> str:
    """Return names and values as a table; figures stand where words do."""
    lines = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_text(value))}</td></tr>' for name, value in rows
    )
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _when(at: object) -> str:
    """Return an RFC 3339 time of the report to the second."""
    return f"{datetime.fromisoformat(str(at)):%Y-%m-%d %H:%M:%S} UTC"


def _cell(value: object) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f'<td class="n">{_number(value)}</td>'
    return f"<td>{escape(_text(value))}</td>"


def _number(value: object) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(str(value))


def _text(value: object) -> str:
    return "" if value is None else "yes" if value is True else "no" if value is False else str(value)


_STATES = {
    "active": "The subject is removed at this endpoint: questions about it are declined.",
    "needs_attention": "The request waits for an operator; it is not complete.",
    "needs_evidence": "The request waits for more pictures; it is not complete.",
    "rejected": "The request was rejected.",
    "cancelled": "The request was cancelled.",
    "revoked": "The removal was withdrawn: the model answers about the subject as before.",
    "failed": "The removal could not be completed; questions about the subject are declined all the same.",
}


def _short(report: Node) -> str:
    state = str(report["request"]["state"])
    words = _STATES.get(state, f"The request is being worked on (state: {state}).")
    passed = report["passed"]
    if passed is None:
        verdict = "Nothing has been measured yet."
    elif passed:
        verdict = '<b class="ok">Every required figure was met.</b>'
    else:
        verdict = '<b class="bad">Not every required figure was met.</b>'
    scope = escape(str(report["scope"]))
    return f'<div class="box"><p>{escape(words)}</p><p>{verdict}</p><p>{scope}</p></div>\n'


def _asked(report: Node) -> str:
    asked, request = report["asked"], report["request"]
    subject = asked["subject"]
    named = "not shown in this copy" if subject is None else ", ".join(_names(subject)) or "pictures only"
    rows = [
        ("Subject", named),
        ("Kind", asked["class"]),
        ("Legal ground", str(asked["legal_ground"]).replace("_", " ")),
        ("Filed", _when(asked["filed_at"])),
        ("Pictures sent", asked["pictures"]),
        ("Pictures kept", asked["pictures_kept"]),
        ("Follows", request["linked_to"]),
    ]
    steps = [(str(step["state"]).replace("_", " "), _when(step["at"])) for step in request["transitions"]]
    body = _facts([row for row in rows if row[1] is not None])
    return _section("What was asked", body + "\n" + _table(("State", "Since"), steps))


def _names(subject: Node) -> list[str]:
    return [str(name) for name in (subject["name"], *subject["aliases"]) if name]


def _knew(report: Node) -> str:
    lines = [report["base_model"]["statement"], *report["model_knew"]["statements"]]
    return "".join(f"<p>{escape(str(line))}</p>\n" for line in lines)


def _findings(title: str, report: Node, part: str, lead: str) -> str:
    rows = []
    for finding in report["findings"]:
        if finding["part"] != part:
            continue
        mark = {True: ' class="ok"', False: ' class="bad"'}.get(finding["met"], "")
        statement = escape(str(finding["statement"]))
        rows.append(f"<tr><th>{escape(str(finding['title']))}</th><td{mark}>{statement}</td></tr>")
    body = lead + ("<table>\n" + "\n".join(rows) + "\n</table>" if rows else "<p>Not measured yet.</p>")
    return _section(title, body)


def _examples(examples: Sequence[Node] | None) -> str:
    if not examples:
        return ""
    rows = [(e["question"], e["before"], e["now"]) for e in examples]
    return _section("Examples", _table(("Question", "Before", "Now"), rows))


def _attacks(tried: Node | None) -> str:
    if not tried:
        return ""
    rows = [
        (name.replace("_", " "), f["told"], f["n"], f["value"], f["low"], f["high"])
        for name, f in tried["attacks"].items()
    ]
    lead = (
        f"<p>Plain questions were answered in {escape(str(tried['clean_told']))} of "
        f"n = {escape(str(tried['clean_n']))} cases. Below: how often each kind of attack got the answer, "
        "and what it gained over plain questions (a share, with a conservative 95 % interval).</p>"
    )
    head = ("Attack", "succeeded", "n", "gain", "from", "to")
    return _section("Attacks tried", lead + _table(head, rows))


def _again(rows: Sequence[Node]) -> str:
    if not rows:
        return ""
    lines = [
        (
            row["generation"],
            row["at"],
            m["metric"].replace("_", " "),
            m["value"],
            *m["interval_95"],
            m["n"],
            m["passed"],
        )
        for row in rows
        for m in row["measured"]
    ]
    head = ("Generation", "at", "figure", "value", "from", "to", "n", "met")
    lead = "<p>After this and later requests went live, a sample was measured again.</p>"
    return _section("Measured again", lead + _table(head, lines))


def _not_claimed(statements: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(text)}</li>" for text in statements)
    return _section("What is not claimed", f"<ul>\n{items}\n</ul>")


def _manifest(manifest: Node) -> str:
    hashes = manifest["pictures"]
    if not hashes:
        return _section("Exclusion manifest", "<p>No pictures were sent, so there is nothing to list.</p>")
    items = "\n".join(f"<li><code>{escape(str(value))}</code></li>" for value in hashes)
    lead = (
        "<p>The next full training of the model must leave out the files with these content hashes "
        f"({escape(str(manifest['algorithm']))}):</p>"
    )
    return _section("Exclusion manifest", f"{lead}\n<ul>\n{items}\n</ul>")


def _technical(report: Node) -> str:
    expert, audit = report["expert"] or {}, report["audit"]
    rows = [(f"policy: {key}", value) for key, value in (report["policy"] or {}).items()]
    rows += [(f"expert: {key}", value) for key, value in expert.items()]
    rows += [("audit events", audit["events"]), ("hash of the last", audit["last_hash"])]
    return _section("Technical", _facts(rows))
