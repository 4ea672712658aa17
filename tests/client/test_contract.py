"""The client against the service: the same fields, the same kinds of problems, the same calls in both."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import get_args

import httpx
import pytest
from pydantic import BaseModel

from app.api import health, problems
from app.audit import schemas as audit
from app.chat import schemas as chat
from app.client import AsyncClient, Client, types
from app.client.errors import IllegalTransitionError, PolicyChangedError, RequestNotFoundError, kinds
from app.kit.errors import Problem
from app.main import create_app
from app.registry import endpoints as registry
from app.removal import schemas as removal
from app.removal.states import State
from app.settings import load_settings
from app.webhooks import schemas as webhooks
from tests.service import Service, png

SCHEMAS: dict[str, type[BaseModel]] = {
    "Links": removal.Links,
    "Accepted": removal.Accepted,
    "Subject": removal.SubjectView,
    "Request": removal.RequestView,
    "Transition": removal.TransitionView,
    "Score": removal.ScoreView,
    "Stage": removal.StageView,
    "KeptPicture": removal.EvidenceView,
    "Policy": removal.PolicyView,
    "PolicyRules": removal.PolicyRules,
    "PolicyVersion": removal.PolicyVersionView,
    "Cell": removal.CellView,
    "HeatMap": removal.HeatMapView,
    "Point": removal.PointView,
    "OwnViews": removal.OwnViewsView,
    "Lifelong": removal.LifelongView,
    "Status": removal.StatusView,
    "Failure": removal.FailureView,
    "Failures": removal.FailuresView,
    "Expert": registry.ExpertView,
    "Replica": registry.ReplicaView,
    "Registry": registry.RegistryView,
    "Interim": registry.InterimView,
    "Generation": registry.GenerationView,
    "AuditEvent": audit.AuditEventView,
    "Chain": audit.ChainView,
    "Checkpoint": audit.CheckpointView,
    "Proof": audit.ProofView,
    "Consistency": audit.ConsistencyView,
    "Message": chat.ChatAnswer,
    "Usage": chat.Usage,
    "Evidence": chat.RoutingEvidence,
    "Routing": chat.Routing,
    "Answer": chat.ChatResponse,
    "Comparison": chat.Comparison,
    "Attack": chat.AttackView,
    "AskedTurn": chat.AskedTurn,
    "AttackResult": chat.AttackResult,
    "GateScores": chat.GateScores,
    "Ready": health.Ready,
    "Webhook": webhooks.WebhookView,
    "Delivery": webhooks.DeliveryView,
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_type_has_the_fields_of_its_schema(name: str) -> None:
    properties = SCHEMAS[name].model_json_schema(mode="serialization", by_alias=True)["properties"]
    assert set(getattr(types, name).__annotations__) == set(properties)


def test_states_and_reasons_are_the_services() -> None:
    assert set(get_args(types.State)) == {state.value for state in State}
    assert get_args(types.Denial) == get_args(removal.DenialReason)


def _problems(base: type[Problem] = Problem) -> Iterator[type[Problem]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _problems(kind)


def _over_json(kind: type[Problem]) -> bool:
    """Whether it is ours, and not one that only a page of the dashboard says."""
    return kind.__module__.startswith("app.") and not kind.__module__.startswith("app.dashboard")


def test_every_kind_of_problem_has_an_exception() -> None:
    create_app(load_settings(_env_file=None))  # imports every room
    served = {kind.TYPE for kind in _problems() if _over_json(kind)} | {Problem.TYPE}
    assert problems.MethodNotAllowed.TYPE in served
    assert served == set(kinds())


def test_every_endpoint_has_a_call() -> None:
    """But pages for people, OpenAI's routes (its own client is for those), and liveness."""
    from app.client import calls

    app = create_app(load_settings(_env_file=None))
    text = inspect.getsource(calls) + inspect.getsource(Client)
    for path in app.openapi()["paths"]:
        if path.startswith("/v1/") or path == "/healthz":
            continue
        stem = path.split("{")[0].rstrip("/")
        tail = path.rpartition("}")[2]
        assert stem in text, path
        assert tail.lstrip("/") in text, path


def _signature(method: Callable[..., object]) -> list[tuple[str, object, object]]:
    """Names, kinds and defaults: annotations differ in `AsyncIterator` alone."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


def test_both_clients_have_the_same_methods() -> None:
    public = {name: m for name, m in vars(Client).items() if callable(m) and not name.startswith("_")}
    other = {name: m for name, m in vars(AsyncClient).items() if callable(m) and not name.startswith("_")}
    assert set(public) == set(other)
    for name, method in public.items():
        assert _signature(method) == _signature(other[name]), name
        assert method.__doc__ == other[name].__doc__, name


def _ask(service: Service, key: str, use: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Use an asynchronous client of the application itself."""

    async def run() -> None:
        transport = httpx.ASGITransport(app=service.client.app)
        async with AsyncClient("http://127.0.0.1", key, transport=transport) as client:
            await use(client)

    asyncio.run(run())


class TestAgainstTheService:
    def test_a_request_from_filing_to_withdrawal(self, manual: Service) -> None:
        async def use(lethe: AsyncClient) -> None:
            filed = await lethe.submit(
                name="Ann Lee", klass="Personage", pictures=[("a.png", png())], aliases=["A"], requester="me"
            )
            request_id = filed["id"]
            assert (await lethe.status(request_id))["waiting"]
            assert [s["state"] async for s in lethe.follow(request_id)] == ["in_review"]
            view = await lethe.request(request_id, subject=True)
            assert view["subject"] is not None
            assert view["subject"]["requester"] == "me"
            assert (await lethe.add_evidence(request_id, [("b.png", png("blue"))]))["state"] == "in_review"
            assert (await lethe.approve(request_id, reason="fine"))["state"] == "queued"
            with pytest.raises(IllegalTransitionError):
                await lethe.approve(request_id)
            with pytest.raises(IllegalTransitionError):
                await lethe.retry(request_id)
            assert [i["request_id"] for i in (await lethe.interims())["items"]] == [request_id]
            assert (await lethe.withdraw(request_id))["state"] == "cancelled"
            listed = await lethe.requests(state=["cancelled", "queued"], limit=5)
            assert [item["id"] for item in listed["items"]] == [request_id]
            assert (await lethe.requests(state="active"))["items"] == []
            happened = [event["state"] async for event in lethe.events(request_id)]
            assert happened[-1] == "cancelled"
            assert (await lethe.report(request_id))["request"]["id"] == request_id
            assert request_id in await lethe.report_page(request_id)
            assert (await lethe.failures(request_id))["items"] == []
            with pytest.raises(RequestNotFoundError):
                await lethe.status("req_" + "0" * 32)

        _ask(manual, manual.key("acme", "owner", "operator"), use)

    def test_rejection(self, manual: Service) -> None:
        async def use(lethe: AsyncClient) -> None:
            filed = await lethe.submit(name="Ann Lee", klass="Personage")
            refused = await lethe.reject(filed["id"], "no_match", reason="not hers")
            assert (refused["state"], refused["reason_code"]) == ("rejected", "no_match")

        _ask(manual, manual.key("acme", "owner", "operator"), use)

    def test_the_audit_trail(self, service: Service) -> None:
        filed = service.file()

        async def use(lethe: AsyncClient) -> None:
            events = await lethe.audit_events(subject_id=filed["id"])
            checkpoint = await lethe.audit_checkpoint()
            assert (await lethe.audit_verify([checkpoint["jws"]]))["intact"]
            assert (await lethe.audit_checkpoints())["items"][0]["jws"] == checkpoint["jws"]
            seq = events["items"][0]["seq"]
            proof = await lethe.audit_proof(seq)
            assert proof["event"]["hash"] == events["items"][0]["hash"]
            same = await lethe.audit_consistency(checkpoint["seq"], checkpoint["seq"])
            assert same["newer"]["root"] == checkpoint["root"]
            lines = "".join([piece async for piece in lethe.audit_export()]).splitlines()
            assert any(filed["id"] in line for line in lines)
            assert json.loads(lines[-1])
            assert (await lethe.public_keys())["keys"][0]["kty"] == "OKP"

        _ask(service, service.auditor, use)

    def test_the_registry(self, service: Service) -> None:
        filed = service.file()

        async def use(lethe: AsyncClient) -> None:
            assert (await lethe.experts())["interim"] == 1
            newest = (await lethe.generations())["items"][0]
            assert (newest["cause"], newest["request_id"]) == ("protect", filed["id"])
            made = await lethe.restore(newest["number"])
            assert (made["number"], made["restored_from"]) == (newest["number"] + 1, newest["number"])
            assert await lethe.ready()
            assert (await lethe.readiness())["checks"]["database"] == "ok"

        _ask(service, service.root, use)

    def test_the_policy(self, service: Service) -> None:
        async def use(lethe: AsyncClient) -> None:
            before = await lethe.policy()
            made = await lethe.set_policy({"max_leak": 0.01}, reason="agreed", based_on=before["version"])
            assert (made["version"], made["max_leak"], made["overridden"]) == (1, 0.01, ["max_leak"])
            with pytest.raises(PolicyChangedError) as refused:
                await lethe.set_policy({"max_leak": 0.02}, reason="agreed", based_on=before["version"])
            assert refused.value.problem["version"] == 1
            versions = (await lethe.policy_versions(limit=1))["items"]
            assert versions[0]["rules"]["max_leak"] == 0.01

        _ask(service, service.root, use)
