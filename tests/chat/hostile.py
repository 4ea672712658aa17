"""Hostile texts, sent to the whole application: filing, both shapes of chat, audit trail, headers, addresses.

    python -m tests.chat.hostile EXAMPLES STEP

reads settings from the environment, sends every STEP-th of the fixed texts and EXAMPLES random ones, and ends
with status 0 if none was answered with 500 and the process has grown by less than 200 MiB. SIGPROF ends it
where one request takes more than two seconds of processor time.
"""

import json
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.accounts.service import SCOPES, create_key
from app.main import create_app

SECONDS = 2.0
BYTES = 200 * 2**20

TEXTS = (
    "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\ufffe\uffff", "\u202eevil\u202c", "\u2066\u2069" * 50,
    "\u0301" * 20_000, "Z" + "\u0336" * 5_000, "\ufdfa" * 19_000, "\u3316" * 19_000, "\u200d" * 19_000,
    "\U0001f468\u200d\U0001f469" * 4_000, "\u0130\u1e9e\u01c5" * 3_000, "x" * 1_000_000, "\n" * 19_000,
    "a " * 9_900, "a," * 9_900, "and " * 4_900, "1. " * 6_000, "?" * 19_000, "(" * 19_000, "SGVsbG8=" * 2_400,
    "%00", "../" * 300, "{{7*7}}${7*7}", "'; DROP TABLE x; --", "<script>", "NaN", "1e999", "\u0661\u0662",
    "h e l l o " * 1_900, "h.3.l.l.o" * 2_000, "01100001 " * 2_000, "\u0430" * 19_000, "e\u0301" * 9_000,
)  # fmt: skip

ODD_JSON = (
    b"", b"null", b"[]", b'"x"', b"{", b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe", b"\xed\xa0\x80",
    b'{"name": "\\ud800", "class": "Personage"}', b'{"name": 1e999, "class": "Personage"}',
    b'{"name": ' + b"9" * 100_000 + b"}", b'{"messages": [{"role": "user", "content": "\\udc00x"}]}',
    b'{"messages": NaN}', b'{"messages": [], "max_tokens": ' + b"9" * 5_000 + b"}",
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e400}',
    b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 30 + b"}",
    b'{"messages": [' + b'{"role": "user", "content": "x"},' * 20_000 + b"{}]}",
    b'{"name": "A", "facts": {' + b",".join(b'"%d": ""' % i for i in range(20_000)) + b"}}",
)  # fmt: skip
PATHS = ("/unlearn-requests", "/chat", "/v1/chat/completions", "/audit/verify", "/requests/req_x/cancel")


class Asked:
    """The application, asked with a key that may do everything."""

    def __init__(self, client: TestClient, key: str) -> None:
        self.client, self.key, self.statuses = client, key, Counter[int]()

    def send(self, method: str, path: str, **arguments: Any) -> None:
        headers = {"Authorization": f"Bearer {self.key}", **arguments.pop("headers", {})}
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        response = self.client.request(method, path, headers=headers, **arguments)
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.statuses[response.status_code] += 1
        if response.status_code >= 500:
            raise SystemExit(f"{method} {path[:100]}: {response.status_code} for {str(arguments)[:300]}")

    def text(self, text: str) -> None:
        """Send one text wherever a text can go."""
        question = [{"role": "user", "content": text}]
        bodies: list[tuple[str, object]] = [
            ("/unlearn-requests", {"name": text, "class": "Personage"}),
            ("/unlearn-requests", {"name": "Ann", "aliases": [text], "note": text, "class": text}),
            (
                "/unlearn-requests",
                {"name": "Ann", "facts": {text: text}, "requester": text, "class": "Personage"},
            ),
            ("/unlearn-requests", {"name": "Ann", "class": "Personage", "pictures": [text]}),
            ("/chat", {"messages": question, "max_tokens": 1}),
            ("/chat", {"messages": [{"role": "assistant", "content": text}, *question], "max_tokens": 1}),
            (
                "/v1/chat/completions",
                {"model": "tiny", "messages": question, "max_tokens": 1, "stop": [text]},
            ),
            ("/v1/chat/completions", {"model": text, "messages": question, text: text}),
            ("/audit/verify", {"checkpoints": [text]}),
            ("/requests/req_x/cancel", {"reason": text}),
        ]
        for path, body in bodies:
            self.send("POST", path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        form = {"message": text.encode("utf-8", "surrogatepass"), "messages": text.encode("utf-8", "replace")}
        self.send("POST", "/chat", data=form, files={"pictures": ("x", b"x")})
        self.send("POST", "/unlearn-requests", data={"name": form["message"], "class": "Personage"})
        short = quote(text[:2000].encode("utf-8", "surrogatepass"))
        for path in (
            f"/requests/{short}",
            f"/v1/models/{short}",
            f"/requests?cursor={short}&state={short}",
            f"/audit/events?subject_id={short}&limit={short}",
            f"/audit/events/{short}/proof",
        ):
            self.send("GET", path)
        header = text[:200].encode("utf-8", "surrogatepass").replace(b"\n", b" ").replace(b"\r", b" ")
        for name in ("Idempotency-Key", "Last-Event-ID", "Accept", "Content-Type"):
            self.send("POST", "/unlearn-requests", content=b"{}", headers={name: header})


@contextmanager
def application() -> Iterator[Asked]:
    app = create_app()
    with TestClient(app, raise_server_exceptions=False) as client:
        with app.state.session_factory.begin() as session:
            key = create_key(session, tenant="root", scopes=SCOPES).secret
        yield Asked(client, key)


def main(examples: int, step: int) -> int:
    """Send everything; 0 if all was well."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with application() as asked:
        asked.text("Hello")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for text in TEXTS[::step]:
            asked.text(text)
        for body in ODD_JSON:
            for path in PATHS:
                for kind in ("application/json", "application/x-www-form-urlencoded"):
                    asked.send("POST", path, content=body, headers={"Content-Type": kind})

        @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(st.text(st.characters(codec=None), max_size=60))
        def anything(text: str) -> None:
            asked.text(text)

        anything()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        sys.stdout.write(json.dumps({"statuses": asked.statuses, "grown": grown}) + "\n")
        return 0 if grown < BYTES else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
