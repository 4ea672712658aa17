"""The front page's HTML: plain, readable in a terminal browser, light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; font-size: 1.1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1.5rem .2rem 0; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: #18794e; } .bad { color: #cd2b31; }
@media (prefers-color-scheme: dark) { .ok { color: #4cc38a; } .bad { color: #ff6369; } }
footer { margin-top: 3rem; font-size: .9rem; opacity: .8; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Allows this page's own style sheet and nothing else: no script, no picture, no other origin."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the front page shows.

    ``requests`` (by state) is None where figures are not for everybody; ``serving`` is this replica's
    generation, None while no model is loaded; ``replicas`` are (id, generation acknowledged).
    """

    version: str
    model: str
    newest: int
    serving: int | None
    requests: Mapping[str, int] | None
    replicas: Sequence[tuple[str, int]]


def front_page(figures: Figures) -> str:
    """Render the front page; everything that is not ours is escaped."""
    current = figures.serving is not None and figures.serving >= figures.newest
    state = '<b class="ok">ready</b>' if current else '<b class="bad">not ready</b>'
    serving = "no model loaded" if figures.serving is None else f"generation {figures.serving}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5">
<title>Lethe</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Lethe</h1>
<p>An unlearning service for deployed multimodal LLMs.</p>
<h2>Service</h2>
<table>
<tr><th>state</th><td>{state}</td></tr>
<tr><th>model</th><td>{escape(figures.model)}</td></tr>
<tr><th>this replica serves</th><td>{serving} (newest: {figures.newest})</td></tr>
<tr><th>version</th><td>{escape(figures.version)}</td></tr>
</table>
{_replicas(figures.replicas)}
{_requests(figures.requests)}
<h2>Next</h2>
<ul>
<li><a href="/dashboard">Dashboard</a>: log in with an API key</li>
<li><a href="/docs">API, with every error</a> (<a href="/openapi.json">OpenAPI</a>)</li>
<li><a href="/readyz">readiness</a>, <a href="/healthz">liveness</a></li>
</ul>
<footer>Forgotten means suppressed at this endpoint: the base model's weights are as they were.</footer>
</body>
</html>
"""


def _requests(requests: Mapping[str, int] | None) -> str:
    if requests is None:
        return "<h2>Requests</h2>\n<p>Operators find them under <code>GET /requests</code>.</p>"
    if not requests:
        return "<h2>Requests</h2>\n<p>None yet: <code>POST /unlearn-requests</code>.</p>"
    rows = (
        f'<tr><th>{escape(state.replace("_", " "))}</th><td class="n">{count}</td></tr>'
        for state, count in requests.items()
    )
    return "<h2>Requests</h2>\n<table>\n" + "\n".join(rows) + "\n</table>"


def _replicas(replicas: Sequence[tuple[str, int]]) -> str:
    if not replicas:
        return ""
    rows = (
        f'<tr><td>{escape(name)}</td><td class="n">{generation}</td></tr>' for name, generation in replicas
    )
    head = "<tr><th>replica</th><th>generation</th></tr>\n"
    return "<h2>Replicas</h2>\n<table>\n" + head + "\n".join(rows) + "\n</table>"
