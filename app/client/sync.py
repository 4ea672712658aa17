"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, TypeVar

import httpx
from httpx_sse import EventSource

from app.client import calls, types
from app.client.calls import Call, Picture, may_pass, pause_before_retry
from app.client.errors import ApiError, StreamBrokenError, UnreachableError, refusal
from app.client.types import Denial, Json, Page, State, Turn

T = TypeVar("T")


class Client:
    """Talks to one server with one API key.

    What may pass (no connection, 429, 502, 503, 504) is tried again where that cannot do anything twice:
    reading, chatting, and filing, which carries an Idempotency-Key. The server's `Retry-After` is heeded.

    Args:
        url: base URL, such as ``http://127.0.0.1:8000``.
        key: API key, or None for what needs none.
        timeout: seconds to wait for an answer.
        retries: how often a call is tried again.
        transport: for tests, and for certificates or proxies of one's own.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
        self._retries = retries
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, trust_env=not local, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Requests -----------------------------------------------------------------------------------------------

    def submit(
        self,
        *,
        name: str | None,
        klass: str,
        pictures: Sequence[Picture] = (),
        aliases: Sequence[str] = (),
        note: str = "",
        legal_ground: str = "gdpr_art_17",
        requester: str = "",
        idempotency_key: str | None = None,
    ) -> types.Accepted:
        """File a removal request (scope ``owner``); returns it as accepted (202).

        Args:
            name: what the subject is called, if it has a name.
            klass: one of MLUBench's nine classes, such as ``Personage``.
            pictures: file names and contents.
            aliases: other names.
            note: free text for the reviewer.
            legal_ground: why it must be removed.
            requester: who asks, and how to reach them.
            idempotency_key: makes a repeated call return the first one's answer; by default one is made up.
        """
        return self._send(
            calls.submit(name, klass, pictures, aliases, note, legal_ground, requester, idempotency_key)
        )

    def requests(
        self,
        *,
        state: State | Sequence[State] | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[types.Request]:
        """Return one page of the requests this key may see, newest first."""
        return self._send(calls.page("/requests", cursor, limit, state=state))

    def request(self, request_id: str, *, subject: bool = False) -> types.Request:
        """Return one request; with ``subject`` whom it is about (audited)."""
        return self._send(calls.request(request_id, subject))

    def status(self, request_id: str) -> types.Status:
        """Return state, stage, percent, times and scores of one request."""
        return self._send(calls.status(request_id))

    def follow(self, request_id: str, *, interval: float = 0.3) -> Iterator[types.Status]:
        """Yield the status every ``interval`` seconds until the request is final or waits for a person."""
        while True:
            status = self.status(request_id)
            yield status
            if status["final"] or status["waiting"]:
                return
            time.sleep(interval)

    def events(self, request_id: str, *, after: int = 0) -> Iterator[types.Happened]:
        """Yield what happens to a request until it is final; a broken stream is taken up again.

        Args:
            request_id: which request.
            after: `id` of the last event that is known.
        """
        broken = 0
        while True:
            headers = {"Last-Event-ID": str(after)} if after else {}
            try:
                with self._stream("GET", f"/requests/{request_id}/events", headers=headers) as response:
                    if response.status_code == 204:
                        return
                    for event in EventSource(response).iter_sse():
                        if not event.data:
                            continue
                        after, broken = int(event.id), 0
                        happened: types.Happened = event.json()
                        yield happened
                return
            except UnreachableError:
                broken += 1
                if broken > self._retries:
                    raise
                time.sleep(pause_before_retry(broken, None))

    def approve(self, request_id: str, *, reason: str | None = None) -> types.Status:
        """Approve a request that waits for review (scope ``operator``)."""
        return self._send(calls.act(request_id, "approve", reason))

    def reject(self, request_id: str, reason_code: Denial, *, reason: str | None = None) -> types.Status:
        """Reject a request, with a reason code of the Data Rights Protocol (scope ``operator``)."""
        return self._send(calls.act(request_id, "reject", reason, reason_code=reason_code))

    def retry(self, request_id: str, *, reason: str | None = None) -> types.Status:
        """Queue a request again that needed attention (scope ``operator``)."""
        return self._send(calls.act(request_id, "retry", reason))

    def cancel(self, request_id: str, *, reason: str | None = None) -> types.Status:
        """Cancel a request that is not active yet; while it is worked on, at the worker's next step."""
        return self._send(calls.act(request_id, "cancel", reason))

    def revoke(self, request_id: str, *, reason: str | None = None) -> types.Status:
        """End the protection of an active or failed request."""
        return self._send(calls.act(request_id, "revoke", reason))

    def withdraw(self, request_id: str, *, reason: str | None = None) -> types.Status:
        """Take a request back, however far it is: cancel it, or revoke it once it is active or failed."""
        state = self.status(request_id)["state"]
        action = "revoke" if state in ("active", "failed") else "cancel"
        return self._send(calls.act(request_id, action, reason))

    def add_evidence(self, request_id: str, pictures: Sequence[Picture]) -> types.Status:
        """Send more pictures; a request that waited for them goes back into the queue."""
        return self._send(calls.add_evidence(request_id, pictures))

    def evidence(self, request_id: str) -> list[types.KeptPicture]:
        """Return which pictures are kept of a request and when the others were purged."""
        return self._send(calls.evidence(request_id))

    def picture(self, request_id: str, evidence_id: str) -> bytes:
        """Return one picture of the evidence as a PNG file (scope ``operator`` or ``owner``; audited)."""
        return self._send(calls.picture(request_id, evidence_id))

    def policy(self) -> types.Policy:
        """Return the rules in force now."""
        return self._send(calls.policy())

    def set_policy(self, rules: types.PolicyRules, *, reason: str, based_on: int) -> types.Policy:
        """Judge what is approved from now on by other rules (scope ``operator``, tenant ``root``).

        Args:
            rules: all that are to differ from the settings; what is left out is as they have it.
            reason: why, for the history.
            based_on: the policy's ``version`` that was looked at; :class:`PolicyChangedError` if it is
                not the newest any more.
        """
        return self._send(calls.set_policy(rules, reason, based_on))

    def policy_versions(
        self, *, cursor: str | None = None, limit: int | None = None
    ) -> Page[types.PolicyVersion]:
        """Return what was set over the settings, newest first."""
        return self._send(calls.page("/policy/versions", cursor, limit))

    def lifelong(
        self, *, metric: str | None = None, requests: int | None = None, generations: int | None = None
    ) -> types.Lifelong:
        """Return what was measured of all requests over time: a heat map and error against experts.

        Args:
            metric: of the heat map.
            requests: how many of the newest requests.
            generations: how many of the newest generations.
        """
        return self._send(calls.lifelong(metric, requests, generations))

    def report(self, request_id: str, *, subject: bool = False) -> Json:
        """Return the report; with ``subject`` its name and some questions and answers (audited)."""
        found: Json = self._send(calls.report(request_id, "json", subject))
        return found

    def report_page(self, request_id: str, *, subject: bool = False) -> str:
        """Return the report as an HTML page, see ``report``."""
        found: str = self._send(calls.report(request_id, "html", subject))
        return found

    def certificate(self, request_id: str) -> str:
        """Return the signed certificate of an active request, a compact JWS."""
        return self._send(calls.certificate(request_id))

    def failures(self, request_id: str) -> types.Failures:
        """Return the prompts behind figures that fell short (scope ``operator``; audited)."""
        return self._send(calls.failures(request_id))

    # The model ----------------------------------------------------------------------------------------------

    def chat(self, messages: Sequence[Turn], *, max_tokens: int = 64) -> types.Answer:
        """Ask the model (scope ``chat``); the answer is at ``["message"]["content"]``."""
        return self._send(calls.chat(messages, max_tokens))

    def stream_chat(
        self,
        messages: Sequence[Turn],
        *,
        max_tokens: int = 64,
        ended: Callable[[Json], object] | None = None,
    ) -> Iterator[str]:
        """Ask the model and yield its answer in pieces, as they may leave.

        Args:
            messages: the conversation.
            max_tokens: of the answer, at most.
            ended: called at the end with the answer without its text: usage, finish reason, routing.

        Raises:
            StreamBrokenError: the server could not finish; what was yielded so far is not the whole answer.
        """
        call = calls.chat(messages, max_tokens, stream=True)
        with self._stream(call.method, call.path, **call.arguments) as response:
            for event in EventSource(response).iter_sse():
                if event.data == "[DONE]":
                    return
                frame = event.json()
                if "delta" in frame:
                    yield str(frame["delta"])
                elif "error" in frame:
                    problem = frame["error"]
                    broken = StreamBrokenError(str(problem.get("detail") or problem.get("title")))
                    broken.hint = str(problem.get("hint") or "Ask again.")
                    raise broken
                elif ended is not None:
                    ended(frame["response"])
        raise UnreachableError("the answer broke off before its end")

    def compare(self, messages: Sequence[Turn], *, max_tokens: int = 64) -> types.Comparison:
        """Ask the base model alone and the service (scope ``operator``)."""
        return self._send(calls.compare(messages, max_tokens))

    def attacks(self) -> list[types.Attack]:
        """Return the built-in attacks (scope ``operator``)."""
        return self._send(calls.attacks())

    def attack(self, request_id: str, name: str, *, seed: int = 0) -> types.AttackResult:
        """Try a built-in attack on a request's subject (scope ``operator``; audited)."""
        return self._send(calls.attack(request_id, name, seed))

    def gate_scores(self) -> types.GateScores:
        """Return how pictures of others score at the gate, against its threshold (scope ``operator``)."""
        return self._send(calls.gate_scores())

    # The registry -------------------------------------------------------------------------------------------

    def experts(self, *, cursor: str | None = None, limit: int | None = None) -> types.Registry:
        """Return the newest generation, its experts and replicas (scope ``operator``)."""
        return self._send(calls.experts(cursor, limit))

    def interims(self, *, cursor: str | None = None, limit: int | None = None) -> Page[types.Interim]:
        """Return who is refused without an expert (scope ``operator``)."""
        return self._send(calls.page("/experts/interim", cursor, limit))

    def generations(self, *, cursor: str | None = None, limit: int | None = None) -> Page[types.Generation]:
        """Return the registry's generations, newest first (scope ``operator``)."""
        return self._send(calls.page("/experts/generations", cursor, limit))

    def restore(self, generation: int) -> types.Generation:
        """Make a new generation with an earlier one's experts, as far as allowed (root's ``operator``)."""
        return self._send(calls.restore(generation))

    # The audit trail ----------------------------------------------------------------------------------------

    def audit_events(
        self,
        *,
        subject_id: str | None = None,
        kind: str | None = None,
        order: Literal["oldest", "newest"] | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[types.AuditEvent]:
        """Return one page of the audit trail, oldest first unless told otherwise (scope ``auditor``)."""
        return self._send(
            calls.page("/audit/events", cursor, limit, subject_id=subject_id, kind=kind, order=order)
        )

    def audit_verify(self, checkpoints: Sequence[str] = ()) -> types.Chain:
        """Have the server recompute the whole chain and hold it against ``checkpoints`` kept earlier."""
        return self._send(calls.audit_verify(checkpoints))

    def audit_checkpoint(self) -> types.Checkpoint:
        """Return a signed checkpoint over all events there are."""
        return self._send(calls.audit_checkpoint())

    def audit_checkpoints(
        self, *, cursor: str | None = None, limit: int | None = None
    ) -> Page[types.Checkpoint]:
        """Return the checkpoints that were issued, newest first."""
        return self._send(calls.page("/audit/checkpoints", cursor, limit))

    def audit_proof(self, seq: int, *, size: int | None = None) -> types.Proof:
        """Return the proof that event ``seq`` is in the log under a signed checkpoint."""
        return self._send(calls.audit_proof(seq, size))

    def audit_consistency(self, older: int, newer: int) -> types.Consistency:
        """Return the proof that the log under one checkpoint begins with that under an older one."""
        return self._send(calls.audit_consistency(older, newer))

    def audit_export(self) -> Iterator[str]:
        """Yield the audit log as JSON lines, in pieces (scope ``auditor``)."""
        with self._stream("GET", "/audit/export") as response:
            yield from response.iter_text()

    def public_keys(self) -> types.KeySet:
        """Return the public keys of checkpoints and certificates."""
        return self._send(calls.public_keys())

    # Webhooks -----------------------------------------------------------------------------------------------

    def create_webhook(self, url: str, *, description: str = "") -> types.Webhook:
        """Have every change of state sent to ``url``; `secret` is in this answer alone."""
        return self._send(calls.create_webhook(url, description))

    def webhooks(self, *, cursor: str | None = None, limit: int | None = None) -> Page[types.Webhook]:
        """Return this tenant's webhooks, newest first."""
        return self._send(calls.page("/webhooks", cursor, limit))

    def webhook(self, webhook_id: str) -> types.Webhook:
        """Return one webhook."""
        return self._send(calls.webhook(webhook_id))

    def delete_webhook(self, webhook_id: str) -> None:
        """Send nothing there any more, and forget what waits."""
        return self._send(calls.delete_webhook(webhook_id))

    def enable_webhook(self, webhook_id: str) -> types.Webhook:
        """Deliver again what a disabled webhook has missed, in order."""
        return self._send(calls.webhook_action(webhook_id, "enable"))

    def rotate_webhook(self, webhook_id: str) -> types.Webhook:
        """Make a new secret, shown in this answer alone; the old one signs too for a day."""
        return self._send(calls.webhook_action(webhook_id, "rotate"))

    def test_webhook(self, webhook_id: str) -> types.Delivery:
        """Send a test message now, and return how that went."""
        return self._send(calls.test_webhook(webhook_id))

    def deliveries(
        self, webhook_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> Page[types.Delivery]:
        """Return the attempts at delivering, newest first."""
        return self._send(calls.page(f"/webhooks/{webhook_id}/deliveries", cursor, limit))

    # The server ---------------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Tell whether the server can do its work now."""
        try:
            self._send(calls.readiness())
        except ApiError:
            return False
        return True

    def readiness(self) -> types.Ready:
        """Return what the server needs and has; raises `NotReadyError` with `problem["checks"]`."""
        return self._send(calls.readiness())

    def metrics(self) -> str:
        """Return the figures for Prometheus (scope ``metrics``)."""
        return self._send(calls.metrics())

    # How it is sent -----------------------------------------------------------------------------------------

    def _send(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            refused: ApiError | None = None
            try:
                response = self._http.request(call.method, call.path, **call.arguments)
                if response.is_success:
                    return call.read(response)
                refused = refusal(response)
                if attempt >= self._retries or not may_pass(call, refused):
                    raise refused
            except httpx.TransportError as error:
                arrived = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if attempt >= self._retries or (arrived and not call.repeatable):
                    raise self._unreachable(error) from error
            time.sleep(pause_before_retry(attempt, refused))
            attempt += 1

    @contextmanager
    def _stream(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, **arguments) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"no answer from {self._http.base_url}: {error or type(error).__name__}")
