"""A small typed client for a running Lethe, used by the command line and the demonstration."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypedDict

import httpx
from PIL.Image import Image

Json = dict[str, Any]


class Turn(TypedDict):
    """One message of a conversation as ``POST /chat`` takes it."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Json]


class ApiError(RuntimeError):
    """The server refused; carries the problem document's title, detail and hint."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.hint = str(problem.get("hint") or "")
        detail = problem.get("detail") or problem.get("title") or "no further detail"
        super().__init__(f"{detail} (HTTP {status})")


class UnreachableError(RuntimeError):
    """No server answers at the URL."""

    hint = "Start one with `lethe up`, or set LETHE_URL to the server's address."


class Client:
    """Talks to one server with one API key.

    Args:
        url: base URL, such as ``http://127.0.0.1:8000``.
        key: API key, or None for what needs none.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        *,
        name: str | None,
        klass: str,
        pictures: Sequence[tuple[str, bytes]] = (),
        aliases: Sequence[str] = (),
        note: str = "",
        legal_ground: str = "gdpr_art_17",
        idempotency_key: str | None = None,
    ) -> Json:
        """File a removal request; returns it as accepted (202).

        Args:
            name: what the subject is called, if it has a name.
            klass: one of MLUBench's nine classes, such as ``Personage``.
            pictures: file names and contents.
            aliases: other names.
            note: free text for the reviewer.
            legal_ground: why it must be removed.
            idempotency_key: makes a repeated call return the first one's answer.
        """
        form: dict[str, str | list[str]] = {
            "class": klass,
            "aliases": list(aliases),
            "legal_ground": legal_ground,
        }
        form |= {field: value for field, value in (("name", name), ("note", note)) if value}
        files = [("pictures", picture) for picture in pictures]
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/unlearn-requests", data=form, files=files or None, headers=headers)

    def approve(self, request_id: str) -> Json:
        """Approve a request that waits for review (scope ``operator``)."""
        return self._json("POST", f"/requests/{request_id}/approve", json={})

    def ready(self) -> bool:
        """Whether the server can do its work now."""
        try:
            self._json("GET", "/readyz")
        except ApiError:
            return False
        return True

    def status(self, request_id: str) -> Json:
        """State, stage, percent, times and scores of one request."""
        return self._json("GET", f"/requests/{request_id}/status")

    def report(self, request_id: str, *, subject: bool = False) -> Json:
        """The report of one request; with ``subject`` its name and some questions and answers (audited)."""
        query = {"format": "json", "subject": str(subject).lower()}
        return self._json("GET", f"/requests/{request_id}/report", params=query)

    def report_page(self, request_id: str, *, subject: bool = False) -> str:
        """The report of one request as an HTML page, see ``report``."""
        query = {"format": "html", "subject": str(subject).lower()}
        return self._send("GET", f"/requests/{request_id}/report", params=query).text

    def requests(self, **query: str | int) -> Json:
        """One page of the requests this key may see."""
        return self._json("GET", "/requests", params=query)

    def follow(self, request_id: str, *, interval: float = 0.3) -> Iterator[Json]:
        """Yield the status until the request is final or waits for a person."""
        while True:
            status = self.status(request_id)
            yield status
            if status["final"] or status["waiting"]:
                return
            time.sleep(interval)

    def audit_export(self) -> Iterator[str]:
        """Yield the audit log as JSON lines, in pieces (scope ``auditor``)."""
        try:
            with self._http.stream("GET", "/audit/export") as response:
                if not response.is_success:
                    response.read()
                    raise _refusal(response)
                yield from response.iter_text()
        except httpx.TransportError as error:
            raise UnreachableError(
                f"the log broke off: {error or type(error).__name__} ({self._http.base_url})"
            ) from error

    def chat(self, messages: Sequence[Turn], *, max_tokens: int = 64) -> Json:
        """Ask the model; the answer is at ``["message"]["content"]``."""
        return self._json("POST", "/chat", json={"messages": list(messages), "max_tokens": max_tokens})

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        found: Json = self._send(method, path, **arguments).json()
        return found

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise UnreachableError(
                f"no answer from {self._http.base_url}: {error or type(error).__name__}"
            ) from error
        if response.is_success:
            return response
        raise _refusal(response)


def _refusal(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {"title": response.text[:200]}
    return ApiError(response.status_code, problem if isinstance(problem, dict) else {})


def png(picture: Image) -> bytes:
    """The picture as a PNG file."""
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()


def turn(role: Literal["system", "user", "assistant"], text: str, pictures: Sequence[bytes] = ()) -> Turn:
    """One message, its PNG ``pictures`` before its ``text``."""
    if not pictures:
        return {"role": role, "content": text}
    urls = ["data:image/png;base64," + base64.b64encode(picture).decode() for picture in pictures]
    parts: list[Json] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}
