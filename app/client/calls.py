"""Every call of the API as a value, without input or output: what both clients send and how they read it."""

from __future__ import annotations

import base64
import io
import math
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import httpx

from app.client import types
from app.client.errors import ApiError, IdempotencyInFlightError, ServerError
from app.client.types import Json, Page, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Picture = tuple[str, bytes]
"""A file's name and its bytes."""

_LONGEST_WAIT = 20.0
_PASSING = frozenset({429, 502, 503, 504})


def _json(response: httpx.Response) -> Any:
    return response.json()


def _text(response: httpx.Response) -> str:
    return response.text


def _bytes(response: httpx.Response) -> bytes:
    return response.content


def _nothing(_: httpx.Response) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP call.

    Args:
        method: HTTP method.
        path: below the base URL.
        read: from a successful answer to the result.
        repeatable: sent again after a failure that may pass; nothing happens twice if the first one arrived.
        arguments: for httpx: `params`, `json`, `data`, `files`, `headers`.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


def pause_before_retry(attempt: int, error: ApiError | None) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 0): what was asked, or doubling."""
    if error is not None and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_WAIT)
    spread: float = random.uniform(0.5, 1.0)  # noqa: S311  not for secrets
    return min(math.ldexp(0.25, attempt), _LONGEST_WAIT) * spread


def may_pass(call: Call[T], error: ApiError) -> bool:
    """Tell whether the same call may succeed a little later, and does no harm if it is made again.

    A refusal over the rate limit comes before anything is done, so it may be repeated always.
    """
    if error.status == 429:
        return True
    passing = error.status in _PASSING and isinstance(error, ServerError)
    return call.repeatable and (passing or isinstance(error, IdempotencyInFlightError))


def _get(path: str, read: Callable[[httpx.Response], T], **params: Any) -> Call[T]:
    given = {name: value for name, value in params.items() if value is not None}
    return Call("GET", path, read, repeatable=True, arguments={"params": given})


def _post(path: str, body: Json | None, *, repeatable: bool = False) -> Call[Any]:
    return Call("POST", path, _json, repeatable, {"json": body} if body is not None else {})


def page(path: str, cursor: str | None, limit: int | None, **params: Any) -> Call[Page[Any]]:
    """One page of a list."""
    return _get(path, _json, cursor=cursor, limit=limit, **params)


def submit(
    name: str | None,
    klass: str,
    pictures: Sequence[Picture],
    aliases: Sequence[str],
    note: str,
    legal_ground: str,
    requester: str,
    idempotency_key: str | None,
) -> Call[types.Accepted]:
    """File a request; a key is made up if none is given, so that it can be sent again."""
    form: dict[str, str | list[str]] = {
        "class": klass,
        "aliases": list(aliases),
        "legal_ground": legal_ground,
    }
    words = (("name", name), ("note", note), ("requester", requester))
    form |= {key: value for key, value in words if value}
    arguments: dict[str, Any] = {
        "data": form,
        "files": [("pictures", picture) for picture in pictures] or None,
        "headers": {"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
    }
    return Call("POST", "/unlearn-requests", _json, True, arguments)


def request(request_id: str, subject: bool) -> Call[types.Request]:
    """Read one request."""
    return _get(f"/requests/{request_id}", _json, subject=str(subject).lower())


def status(request_id: str) -> Call[types.Status]:
    """Read where a request is."""
    return _get(f"/requests/{request_id}/status", _json)


def act(request_id: str, action: str, reason: str | None, **members: str) -> Call[types.Status]:
    """Approve, reject, cancel, retry or revoke."""
    body: Json = {**members, **({"reason": reason} if reason else {})}
    return _post(f"/requests/{request_id}/{action}", body)


def add_evidence(request_id: str, pictures: Sequence[Picture]) -> Call[types.Status]:
    """Send more pictures."""
    files = [("pictures", picture) for picture in pictures]
    return Call(
        "POST", f"/requests/{request_id}/evidence", _json, arguments={"files": files or None, "data": {}}
    )


def evidence(request_id: str) -> Call[list[types.KeptPicture]]:
    """Read which pictures are kept."""
    return _get(f"/requests/{request_id}/evidence", _json)


def picture(request_id: str, evidence_id: str) -> Call[bytes]:
    """Read one picture."""
    return _get(f"/requests/{request_id}/evidence/{evidence_id}", _bytes)


def policy() -> Call[types.Policy]:
    """Read the rules in force."""
    return _get("/policy", _json)


def set_policy(rules: types.PolicyRules, reason: str, based_on: int) -> Call[types.Policy]:
    """Change the rules; sent again, it finds its own version in force and makes no other."""
    body: Json = {"based_on": based_on, "reason": reason, "rules": dict(rules)}
    return Call("PUT", "/policy", _json, True, {"json": body})


def lifelong(metric: str | None, requests: int | None, generations: int | None) -> Call[types.Lifelong]:
    """Read what was measured of all requests together."""
    return _get("/measurements/lifelong", _json, metric=metric, requests=requests, generations=generations)


def report(request_id: str, form: Literal["json", "html"], subject: bool) -> Call[Any]:
    """Read the report as JSON or as a page."""
    read: Callable[[httpx.Response], Any] = _json if form == "json" else _text
    return _get(f"/requests/{request_id}/report", read, format=form, subject=str(subject).lower())


def certificate(request_id: str) -> Call[str]:
    """Read the certificate."""
    return _get(f"/requests/{request_id}/certificate", _text)


def failures(request_id: str) -> Call[types.Failures]:
    """Read the failing examples."""
    return _get(f"/requests/{request_id}/failures", _json)


def chat(messages: Sequence[Turn], max_tokens: int, stream: bool = False) -> Call[types.Answer]:
    """Ask the model; it changes nothing, so it may be asked again."""
    body: Json = {"messages": list(messages), "max_tokens": max_tokens}
    return _post("/chat", {**body, "stream": True} if stream else body, repeatable=True)


def compare(messages: Sequence[Turn], max_tokens: int) -> Call[types.Comparison]:
    """Ask the base model and the service."""
    return _post("/chat/compare", {"messages": list(messages), "max_tokens": max_tokens}, repeatable=True)


def attacks() -> Call[list[types.Attack]]:
    """Read the names of the built-in attacks."""
    return _get("/chat/attacks", _json)


def attack(request_id: str, name: str, seed: int) -> Call[types.AttackResult]:
    """Try a built-in attack."""
    return _post("/chat/attacks", {"request_id": request_id, "attack": name, "seed": seed})


def gate_scores() -> Call[types.GateScores]:
    """Read the gate's scores."""
    return _get("/chat/gate", _json)


def experts(cursor: str | None, limit: int | None) -> Call[types.Registry]:
    """Read the newest generation."""
    return _get("/experts", _json, cursor=cursor, limit=limit)


def restore(generation: int) -> Call[types.Generation]:
    """Roll the registry back."""
    return _post("/experts/rollback", {"generation": generation})


def audit_verify(checkpoints: Sequence[str]) -> Call[types.Chain]:
    """Have the chain recomputed."""
    return _post("/audit/verify", {"checkpoints": list(checkpoints)}, repeatable=True)


def audit_checkpoint() -> Call[types.Checkpoint]:
    """Read the signed head."""
    return _get("/audit/checkpoint", _json)


def audit_proof(seq: int, size: int | None) -> Call[types.Proof]:
    """Read an inclusion proof."""
    return _get(f"/audit/events/{seq}/proof", _json, size=size)


def audit_consistency(older: int, newer: int) -> Call[types.Consistency]:
    """Read a consistency proof."""
    return _get("/audit/consistency", _json, older=older, newer=newer)


def public_keys() -> Call[types.KeySet]:
    """Read the public keys."""
    return _get("/.well-known/jwks.json", _json)


def metrics() -> Call[str]:
    """Read the figures for Prometheus."""
    return _get("/metrics", _text)


def readiness() -> Call[types.Ready]:
    """Ask whether the process can work; not repeated, since "no" is an answer."""
    return Call("GET", "/readyz", _json)


def create_webhook(url: str, description: str) -> Call[types.Webhook]:
    """Register a webhook."""
    return _post("/webhooks", {"url": url, "description": description})


def webhook(webhook_id: str) -> Call[types.Webhook]:
    """Read one webhook."""
    return _get(f"/webhooks/{webhook_id}", _json)


def webhook_action(webhook_id: str, action: Literal["enable", "rotate"]) -> Call[types.Webhook]:
    """Enable a webhook, or give it a new secret."""
    return _post(f"/webhooks/{webhook_id}/{action}", None)


def test_webhook(webhook_id: str) -> Call[types.Delivery]:
    """Send a test message now."""
    return _post(f"/webhooks/{webhook_id}/test", None)


def delete_webhook(webhook_id: str) -> Call[None]:
    """Remove a webhook."""
    return Call("DELETE", f"/webhooks/{webhook_id}", _nothing)


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
