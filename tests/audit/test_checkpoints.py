"""Signed checkpoints: when they are issued, what they refuse to sign, and what is found out with them."""

import json
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from pydantic import SecretStr
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from app.audit.chain import Breach
from app.audit.checkpoints import CheckpointLoop, CheckpointService
from app.audit.errors import ChainBroken, NotCovered
from app.audit.merkle import is_consistent, root_from_path
from app.audit.service import AuditService
from app.db.models import AuditCheckpoint, AuditEvent
from app.db.session import SessionFactory
from app.settings import Settings
from tests.audit.log import append, rehash
from tests.service import Service, assert_problem


def issue(sessions: SessionFactory, settings: Settings) -> AuditCheckpoint:
    with sessions.begin() as session:
        return CheckpointService(session, settings).issue()


class TestIssue:
    def test_covers_what_there_is_and_is_stored(
        self, own_settings: Settings, sessions: SessionFactory
    ) -> None:
        append(sessions, 5)
        made = issue(sessions, own_settings)
        with sessions() as session:
            stored = session.scalars(select(AuditCheckpoint)).one()
            tail = session.scalars(select(AuditEvent).order_by(AuditEvent.seq.desc())).first()
        assert tail is not None
        assert (stored.seq, stored.head_hash, stored.jws) == (5, tail.hash, made.jws)

    def test_nothing_new_no_new_one(self, own_settings: Settings, sessions: SessionFactory) -> None:
        append(sessions, 3)
        assert issue(sessions, own_settings).jws == issue(sessions, own_settings).jws

    def test_each_goes_on_from_the_last(self, own_settings: Settings, sessions: SessionFactory) -> None:
        for n in (1, 2, 5, 1):
            append(sessions, n)
            issue(sessions, own_settings)
        with sessions.begin() as session:
            session.execute(delete(AuditCheckpoint).where(AuditCheckpoint.seq < 9))
            peaks = session.scalars(select(AuditCheckpoint)).one()
            session.execute(delete(AuditCheckpoint))
            session.expunge(peaks)
        assert issue(sessions, own_settings).root == peaks.root

    @pytest.mark.parametrize(
        "tamper",
        [
            "UPDATE audit_events SET actor = 'x' WHERE seq = 6",
            "DELETE FROM audit_events WHERE seq = 6",
            "DELETE FROM audit_events WHERE seq > 3",
            "UPDATE audit_events SET hash = repeat('a', 64) WHERE seq = 4",
            "UPDATE audit_checkpoints SET jws = 'x'",
            "UPDATE audit_checkpoints SET peaks = ARRAY[repeat('a', 64)]",
        ],
    )
    def test_a_broken_chain_is_not_signed_for(
        self, own_settings: Settings, sessions: SessionFactory, tamper: str
    ) -> None:
        append(sessions, 4)
        issue(sessions, own_settings)
        append(sessions, 4)
        with sessions.begin() as session:
            session.execute(text(tamper))
        with pytest.raises(ChainBroken):
            issue(sessions, own_settings)

    @pytest.mark.parametrize("tampered", [False, True])
    def test_the_last_ones_key_was_dropped(
        self, own_settings: Settings, sessions: SessionFactory, tampered: bool
    ) -> None:
        """As after a leak: signing goes on with the new key, but not over another history."""
        append(sessions, 3)
        issue(sessions, own_settings)
        append(sessions, 2)
        if tampered:
            with sessions.begin() as session:
                session.execute(update(AuditEvent).where(AuditEvent.seq == 2).values(actor="x"))
                rehash(session)
        fresh = own_settings.model_copy(update={"secret_key": SecretStr("another secret")})
        if tampered:
            with pytest.raises(ChainBroken, match="rewritten"):
                issue(sessions, fresh)
        else:
            assert issue(sessions, fresh).seq == 5

    def test_over_http(self, service: Service) -> None:
        with service.sessions.begin() as session:
            session.execute(text("UPDATE audit_events SET actor = 'x' WHERE seq = 2"))
        assert_problem(service.get("/audit/checkpoint", service.auditor), 409, "audit-chain-broken")
        assert_problem(service.get("/audit/export", service.auditor), 409, "audit-chain-broken")


class TestPeriodically:
    def test_only_when_due_and_something_happened(
        self, own_settings: Settings, sessions: SessionFactory
    ) -> None:
        loop = CheckpointLoop(sessions, own_settings)
        assert not loop.run_once()
        append(sessions, 1)
        assert loop.run_once()
        append(sessions, 1)
        assert not loop.run_once()
        with sessions.begin() as session:
            earlier = AuditCheckpoint.issued_at - timedelta(seconds=own_settings.checkpoint_seconds)
            session.execute(update(AuditCheckpoint).values(issued_at=earlier))
        assert loop.run_once()
        with sessions() as session:
            assert session.scalars(select(AuditCheckpoint.seq).order_by(AuditCheckpoint.seq)).all() == [1, 2]

    def test_runs_by_itself(self, own_settings: Settings, sessions: SessionFactory) -> None:
        append(sessions, 1)
        loop = CheckpointLoop(sessions, own_settings.model_copy(update={"checkpoint_seconds": 0.01}))
        loop.start()
        issued, deadline = 0, time.monotonic() + 30
        while not issued and time.monotonic() < deadline:
            with sessions() as session:
                issued = session.scalar(select(func.count()).select_from(AuditCheckpoint)) or 0
        loop.stop()
        assert issued

    def test_a_broken_chain_does_not_end_it(self, own_settings: Settings, sessions: SessionFactory) -> None:
        append(sessions, 2)
        with sessions.begin() as session:
            session.execute(text("UPDATE audit_events SET actor = 'x'"))
        assert not CheckpointLoop(sessions, own_settings).run_once()


def _truncate(session: Session) -> None:
    session.execute(delete(AuditEvent).where(AuditEvent.seq > 4))


def _rewrite(session: Session) -> None:
    session.execute(update(AuditEvent).where(AuditEvent.seq == 3).values(actor="somebody else"))
    rehash(session)


def _remove_and_rewrite(session: Session) -> None:
    session.execute(delete(AuditEvent).where(AuditEvent.seq == 3))
    session.flush()
    for seq in range(4, 7):
        session.execute(update(AuditEvent).where(AuditEvent.seq == seq).values(seq=seq - 1))
    rehash(session)


class TestVerify:
    @pytest.mark.parametrize(
        ("tamper", "breach"),
        [
            (_truncate, Breach.TRUNCATED),
            (_rewrite, Breach.DIVERGED),
            (_remove_and_rewrite, Breach.TRUNCATED),
        ],
    )
    def test_what_the_chain_alone_does_not_show(
        self,
        own_settings: Settings,
        sessions: SessionFactory,
        tamper: Callable[[Session], None],
        breach: Breach,
    ) -> None:
        """Whoever may write the database can make a chain that fits itself, but cannot sign for it."""
        append(sessions, 6)
        issue(sessions, own_settings)
        with sessions.begin() as session:
            tamper(session)
        with sessions.begin() as session:
            assert AuditService(session).verify().intact
            report = CheckpointService(session, own_settings).verify()
        assert (report.intact, report.breach) == (False, breach)

    def test_restored_backup(self, service: Service) -> None:
        """The database is as it was before, its own checkpoints too; what somebody kept tells."""
        with service.sessions.begin() as session:
            backup = session.scalar(select(func.max(AuditEvent.seq))) or 0
        service.file("Elodie Brandt")
        kept = service.get("/audit/checkpoint", service.auditor).json()["jws"]
        with service.sessions.begin() as session:
            session.execute(delete(AuditEvent).where(AuditEvent.seq > backup))
            session.execute(delete(AuditCheckpoint))
        assert service.post("/audit/verify", service.auditor).json()["intact"]
        found = service.post("/audit/verify", service.auditor, json={"checkpoints": [kept]}).json()
        assert (found["intact"], found["breach"], found["broken_at"]) == (False, "truncated", backup + 1)

        append(service.sessions, 20)  # the service went on, beyond what was signed for
        found = service.post("/audit/verify", service.auditor, json={"checkpoints": [kept]}).json()
        assert (found["intact"], found["breach"]) == (False, "diverged")

    def test_a_forged_checkpoint(self, service: Service) -> None:
        service.get("/audit/checkpoint", service.auditor)
        own = service.get("/audit/checkpoint", service.auditor).json()["jws"]
        head, payload, signature = own.split(".")
        forged = f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
        found = service.post("/audit/verify", service.auditor, json={"checkpoints": [forged]}).json()
        assert (found["intact"], found["breach"]) == (False, "unsigned")

    def test_counts_the_checkpoints_it_agrees_with(self, service: Service) -> None:
        service.get("/audit/checkpoint", service.auditor)
        service.file()
        kept = service.get("/audit/checkpoint", service.auditor).json()["jws"]
        found = service.post("/audit/verify", service.auditor, json={"checkpoints": [kept]}).json()
        assert (found["intact"], found["checkpoints"]) == (True, 3)

    def test_other_fields_are_refused(self, shared: Service) -> None:
        assert_problem(
            shared.post("/audit/verify", shared.auditor, json={"checkpoint": "x"}), 422, "invalid-input"
        )


class TestProof:
    def test_leads_to_the_signed_root(self, service: Service) -> None:
        service.file()
        service.get("/audit/checkpoint", service.auditor)
        events = service.get("/audit/events", service.auditor).json()["items"]
        keys = KeySet.import_key_set(service.client.get("/.well-known/jwks.json").json())
        for event in (events[0], events[-1]):
            proof = service.get(f"/audit/events/{event['seq']}/proof", service.auditor).json()
            signed = json.loads(
                jws.deserialize_compact(proof["checkpoint"]["jws"], keys, algorithms=["Ed25519"]).payload
                or b""
            )
            path = [bytes.fromhex(node) for node in proof["path"]]
            root = root_from_path(bytes.fromhex(event["hash"]), proof["index"], signed["seq"], path)
            assert root is not None
            assert root.hex() == signed["root"]
            assert proof["event"] == event

    def test_under_a_chosen_checkpoint(self, service: Service) -> None:
        first = service.get("/audit/checkpoint", service.auditor).json()["seq"]
        service.file()
        second = service.get("/audit/checkpoint", service.auditor).json()["seq"]
        seq = service.get("/audit/events", service.auditor).json()["items"][0]["seq"]
        sizes = [
            service.get(f"/audit/events/{seq}/proof{query}", service.auditor).json()["checkpoint"]["seq"]
            for query in ("", f"?size={first}", f"?size={second}")
        ]
        assert sizes == [first, first, second]

    def test_not_covered(self, service: Service) -> None:
        service.file()
        seq = service.get("/audit/events", service.auditor).json()["items"][-1]["seq"]
        problem = assert_problem(
            service.get(f"/audit/events/{seq}/proof", service.auditor), 404, "not-covered"
        )
        assert "GET /audit/checkpoint" in problem["hint"]

    def test_unknown(self, shared: Service) -> None:
        for seq in ("999999", "9" * 18):
            assert_problem(shared.get(f"/audit/events/{seq}/proof", shared.auditor), 404, "not-covered")

    def test_other_tenants_event(self, service: Service) -> None:
        service.file(key=service.stranger)
        service.get("/audit/checkpoint", service.root)
        theirs = service.get("/audit/events", service.root).json()["items"][-1]["seq"]
        assert service.get(f"/audit/events/{theirs}/proof", service.root).status_code == 200
        assert_problem(service.get(f"/audit/events/{theirs}/proof", service.auditor), 404, "not-covered")


class TestConsistency:
    def test_the_log_only_grew(self, service: Service) -> None:
        older = service.get("/audit/checkpoint", service.auditor).json()
        service.file()
        newer = service.get("/audit/checkpoint", service.auditor).json()
        found = service.get(
            f"/audit/consistency?older={older['seq']}&newer={newer['seq']}", service.auditor
        ).json()
        roots = [bytes.fromhex(view["root"]) for view in (found["older"], found["newer"])]
        path = [bytes.fromhex(node) for node in found["path"]]
        assert is_consistent(older["seq"], roots[0], newer["seq"], roots[1], path)
        assert (found["older"], found["newer"]) == (older, newer)

    def test_no_such_checkpoint(self, service: Service) -> None:
        seq = service.get("/audit/checkpoint", service.auditor).json()["seq"]
        for query in (f"older=1&newer={seq}", f"older={seq}&newer={seq + 1}"):
            assert_problem(service.get(f"/audit/consistency?{query}", service.auditor), 404, "not-covered")

    def test_in_the_wrong_order(self, own_settings: Settings, sessions: SessionFactory) -> None:
        append(sessions, 1)
        issue(sessions, own_settings)
        append(sessions, 1)
        issue(sessions, own_settings)
        with sessions.begin() as session, pytest.raises(NotCovered):
            CheckpointService(session, own_settings).prove_consistent(2, 1)


def test_listed_newest_first(service: Service) -> None:
    issued = []
    for name in ("A B", "C D", "E F"):
        service.file(name)
        issued.append(service.get("/audit/checkpoint", service.auditor).json())
    page = service.get("/audit/checkpoints?limit=2", service.auditor).json()
    assert page["items"] == issued[:0:-1]
    rest = service.get(f"/audit/checkpoints?limit=2&cursor={page['next']}", service.auditor).json()
    assert (rest["items"], rest["next"]) == (issued[:1], None)
