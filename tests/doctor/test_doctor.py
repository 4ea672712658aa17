"""`lethe doctor`: nothing to find in a sound system; every check by breaking what it checks."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from sqlalchemy import select

from app.audit.service import AuditService
from app.db.models import AuditEvent
from app.db.session import create_engine_from, session_factory
from app.doctor.findings import Check, Finding, Report
from app.doctor.service import examine
from app.doctor.trail import suspicious
from app.registry.store import open_store
from app.registry.store.objects import ObjectStore
from app.settings import get_settings
from tests.audit.log import rehash
from tests.doctor.sound import Patient, Sound
from tests.test_cli import lethe

AGO = "clock_timestamp() - interval '1 hour'"
broken: set[Check] = set()
"""The checks that some test here has seen to find something."""


class TestSound:
    def test_nothing_is_found(self, patient: Patient) -> None:
        assert patient.findings() == []

    def test_looks_at_everything(self, patient: Patient) -> None:
        looked = patient.looked()
        assert (looked.requests, len(looked.live), looked.replicas) == (7, 1, 1)
        assert looked.events > 30

    def test_in_one_snapshot_that_only_reads(self, built: Sound) -> None:
        before = _count(built)
        report = examine(built.sessions, built.settings)
        assert {f.check for f in report.findings} <= {Check.NO_REPLICA}  # its heartbeat may have run out
        assert _count(built) == before

    def test_empty(self, empty_database: str, built: Sound) -> None:
        from app.embedded.migrate import migrate

        migrate(empty_database)
        engine = create_engine_from(built.settings.model_copy(update={"database_url": empty_database}))
        report = examine(session_factory(engine), built.settings)
        engine.dispose()
        assert report == Report((), 0, 0, 0, 0)


def _count(built: Sound) -> int:
    with built.sessions() as session:
        return len(session.scalars(select(AuditEvent.seq)).all())


def expect(patient: Patient, check: Check, subject: str, *, also: frozenset[Check] = frozenset()) -> Finding:
    """The break is found, at the right place, with a remedy; and nothing else is but what it entails."""
    findings = patient.findings()
    assert (check, subject) in {(f.check, f.subject) for f in findings}, findings
    assert {f.check for f in findings} <= {check} | also, findings
    found = next(f for f in findings if f.check is check and f.subject == subject)
    assert found.remedy
    assert found.detail
    broken.add(check)
    return found


class TestRequests:
    @pytest.mark.parametrize("place_", ["queued", "working"])
    def test_nobody_works_on_it(self, patient: Patient, place_: str) -> None:
        request_id = getattr(patient, place_)
        patient.break_(f"UPDATE outbox SET published_at = {AGO}, created_at = {AGO}")
        patient.break_(f"UPDATE leases SET expires_at = {AGO}")
        patient.break_(f"UPDATE removal_requests SET updated_at = {AGO} WHERE id = :id", id=request_id)
        found = expect(patient, Check.STUCK, request_id)
        assert f"/requests/{request_id}/cancel" in found.remedy

    def test_one_that_is_worked_on_is_left_alone(self, patient: Patient) -> None:
        patient.break_(f"UPDATE outbox SET published_at = {AGO}, created_at = {AGO}")
        patient.break_(f"UPDATE removal_requests SET updated_at = {AGO} WHERE id = :id", id=patient.working)
        assert (Check.STUCK, patient.working) not in patient.found()

    def test_job_that_the_broker_never_got(self, patient: Patient) -> None:
        patient.break_(
            f"UPDATE outbox SET created_at = {AGO}, last_error = 'OperationalError' WHERE request_id = :id",
            id=patient.queued,
        )
        assert "OperationalError" in expect(patient, Check.JOB_UNPUBLISHED, patient.queued).detail

    def test_state_changed_past_the_service(self, patient: Patient) -> None:
        patient.break_("UPDATE removal_requests SET state = 'in_review' WHERE id = :id", id=patient.queued)
        expect(
            patient, Check.HISTORY, patient.queued,
        )  # fmt: skip

    def test_event_taken_out_of_the_history(self, patient: Patient) -> None:
        patient.break_(
            "DELETE FROM request_events WHERE request_id = :id AND event = 'approve'", id=patient.queued
        )
        assert "not possible" in expect(patient, Check.HISTORY, patient.queued).detail

    def test_change_of_state_that_was_not_audited(self, patient: Patient) -> None:
        patient.break_(
            "UPDATE audit_events SET kind = 'evidence.read' WHERE subject_id = :id AND kind = "
            "'request.submit'",
            id=patient.queued,
        )
        expect(patient, Check.HISTORY, patient.queued, also=frozenset({Check.CHAIN}))

    def test_request_that_is_gone(self, patient: Patient) -> None:
        for table, column in (("request_events", "request_id"), ("removal_requests", "id")):
            patient.break_(f"DELETE FROM {table} WHERE {column} = :id", id=patient.cancelled)
        expect(patient, Check.HISTORY, patient.cancelled)

    @pytest.mark.parametrize("lead", ["req_gone", "linked", "working"])
    def test_link(self, patient: Patient, lead: str) -> None:
        patient.break_(
            "UPDATE removal_requests SET linked_to_id = :lead WHERE id = :id",
            lead=getattr(patient, lead, lead), id=patient.linked,
        )  # fmt: skip
        expect(patient, Check.LINK, patient.linked)

    def test_attempts(self, patient: Patient) -> None:
        patient.break_("UPDATE removal_requests SET attempt = 9 WHERE id = :id", id=patient.working)
        assert "9 times" in expect(patient, Check.ATTEMPTS, patient.working).detail

    @pytest.mark.parametrize("table", ["removal_requests", "evidence"])
    def test_evidence_under_a_key_that_is_not_configured(self, patient: Patient, table: str) -> None:
        column, owner = ("subject_sealed", "id") if table == "removal_requests" else ("sealed", "request_id")
        patient.break_(
            f"UPDATE {table} SET {column} = overlay({column} placing '\\x0102030405060708'::bytea from 4) "
            f"WHERE {owner} = :id",
            id=patient.queued,
        )
        found = expect(patient, Check.EVIDENCE_KEY, patient.queued)
        assert "0102030405060708" in found.detail

    def test_a_data_key_under_a_key_that_is_not_configured(self, patient: Patient) -> None:
        patient.break_(
            "UPDATE data_keys SET sealed = overlay(sealed placing '\\x0102030405060708'::bytea from 4)"
        )
        found = expect(patient, Check.EVIDENCE_KEY, patient.active, also=frozenset({Check.EXPERT_FILES}))
        assert "data keys" in found.detail

    def test_active_without_a_score(self, patient: Patient) -> None:
        patient.break_("DELETE FROM verification_scores")
        expect(patient, Check.UNVERIFIED, patient.active)

    def test_active_below_its_policy(self, patient: Patient) -> None:
        patient.break_("UPDATE verification_scores SET passed = false")
        assert "1 figure" in expect(patient, Check.UNVERIFIED, patient.active).detail


class TestRegistry:
    def test_active_without_an_expert(self, patient: Patient) -> None:
        patient.break_("DELETE FROM generation_experts")
        also = frozenset({Check.UNPROTECTED, Check.MISCOUNTED})
        expect(patient, Check.NO_EXPERT, patient.active, also=also)
        assert (Check.UNPROTECTED, patient.active) in patient.found()

    def test_two_experts(self, patient: Patient) -> None:
        patient.break_(
            "INSERT INTO experts SELECT id, 2, request_id, path, manifest_sha256, bytes, model_fingerprint, "
            "created_at FROM experts"
        )
        patient.break_("DROP INDEX uq_generation_experts_current")
        patient.break_(
            "INSERT INTO generation_experts SELECT expert_id, 2, from_generation FROM generation_experts"
        )
        also = frozenset({Check.EXPERT_FILES, Check.MISCOUNTED})
        expect(patient, Check.SEVERAL_EXPERTS, patient.active, also=also)

    def test_an_expert_was_taken_out_past_the_service(self, patient: Patient) -> None:
        patient.break_("UPDATE generations SET experts = experts + 1")
        assert "2 expert(s), and has 1" in expect(patient, Check.MISCOUNTED, "system").detail

    def test_expert_of_a_request_that_ended(self, patient: Patient) -> None:
        patient.break_("UPDATE experts SET request_id = :id", id=patient.cancelled)
        expect(
            patient, Check.STRAY_EXPERT, patient.cancelled,
            also=frozenset({Check.NO_EXPERT, Check.UNPROTECTED, Check.EXPERT_FILES}),
        )  # fmt: skip

    @pytest.mark.parametrize("place_", ["queued", "working", "failed"])
    def test_approved_and_not_protected(self, patient: Patient, place_: str) -> None:
        request_id = getattr(patient, place_)
        patient.break_("DELETE FROM interim_protections WHERE request_id = :id", id=request_id)
        expect(patient, Check.UNPROTECTED, request_id)

    def test_failed_and_taken_over_by_another(self, patient: Patient) -> None:
        patient.break_(
            "UPDATE interim_protections SET until_generation = 1, ended_by = 'superseded' WHERE request_id "
            "= :id",
            id=patient.failed,
        )
        assert patient.findings() == []

    @pytest.mark.parametrize("place_", ["active", "linked", "in_review", "cancelled"])
    def test_protected_without_asking_for_it(self, patient: Patient, place_: str) -> None:
        request_id = getattr(patient, place_)
        patient.break_(
            "INSERT INTO interim_protections (id, request_id, from_generation) VALUES ('prt_x', :id, 1)",
            id=request_id,
        )
        expect(patient, Check.NEEDLESS_PROTECTION, request_id)


class TestFiles:
    def folder(self, patient: Patient) -> Path:
        return patient.settings.experts_dir / patient.expert / "1"

    @pytest.mark.parametrize(
        "name", ["adapter_model.safetensors", "gate.bin", "subject.bin", "manifest.json"]
    )
    def test_changed(self, patient: Patient, name: str) -> None:
        path = self.folder(patient) / name
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        expect(patient, Check.EXPERT_FILES, patient.expert)

    def test_half_copied(self, patient: Patient) -> None:
        path = self.folder(patient) / "adapter_model.safetensors"
        os.truncate(path, path.stat().st_size // 2)
        expect(patient, Check.EXPERT_FILES, patient.expert)

    def test_gone(self, patient: Patient) -> None:
        shutil.rmtree(patient.settings.experts_dir)
        expect(patient, Check.EXPERT_FILES, patient.expert)

    def test_another_manifest_on_record(self, patient: Patient) -> None:
        patient.break_("UPDATE experts SET manifest_sha256 = repeat('b', 64)")
        expect(patient, Check.EXPERT_FILES, patient.expert)

    @pytest.mark.parametrize("path", ["../elsewhere", "/etc", ".", ""])
    def test_path_out_of_the_directory(self, patient: Patient, path: str) -> None:
        patient.break_("UPDATE experts SET path = :path", path=path)
        assert "leads out" in expect(patient, Check.EXPERT_FILES, patient.expert).detail

    def test_another_key(self, patient: Patient) -> None:
        other = patient.settings.model_copy(
            update={"evidence_key": type(patient.settings.evidence_key)("A" * 43 + "=")}
        )
        patient.settings = other
        expect(patient, Check.EXPERT_FILES, patient.expert, also=frozenset({Check.EVIDENCE_KEY}))

    def test_data_key_is_gone(self, patient: Patient) -> None:
        patient.break_("DELETE FROM data_keys")
        found = expect(patient, Check.EXPERT_FILES, patient.expert)
        assert "data key" in found.detail

    def test_files_of_another_request(self, patient: Patient) -> None:
        patient.break_("UPDATE experts SET request_id = :id", id=patient.working)
        expect(
            patient, Check.EXPERT_FILES, patient.expert,
            also=frozenset({Check.NO_EXPERT, Check.UNPROTECTED, Check.NEEDLESS_PROTECTION}),
        )  # fmt: skip

    def test_never_written_down(self, patient: Patient) -> None:
        patient.break_("DELETE FROM experts")
        expect(
            patient, Check.EXPERT_FILES, patient.expert, also=frozenset({Check.NO_EXPERT, Check.UNPROTECTED})
        )


class TestStore:
    """Experts at a URL: the doctor reads what lies there, past every copy."""

    def elsewhere(self, patient: Patient, tmp_path: Path) -> ObjectStore:
        """Move the patient's experts to a URL; this machine has a copy of them."""
        url = f"memory://{uuid.uuid4().hex}/experts"
        settings = patient.settings.model_copy(
            update={"experts_url": url, "experts_dir": tmp_path / "copies"}
        )
        store = open_store(settings)
        assert isinstance(store, ObjectStore)
        store.publish(patient.settings.experts_dir / patient.expert / "1", f"{patient.expert}/1")
        patient.settings = settings
        return store

    def test_whole(self, patient: Patient, tmp_path: Path) -> None:
        self.elsewhere(patient, tmp_path)
        assert patient.findings() == []

    def test_damaged(self, patient: Patient, tmp_path: Path) -> None:
        store = self.elsewhere(patient, tmp_path)
        fs = fsspec.filesystem("memory")
        fs.pipe_file(f"{store.url.removeprefix('memory:/')}/{patient.expert}/1/gate.bin", b"x")
        detail = expect(patient, Check.EXPERT_FILES, patient.expert).detail
        assert "gate.bin does not match" in detail

    def test_unfinished(self, patient: Patient, tmp_path: Path) -> None:
        store = self.elsewhere(patient, tmp_path)
        fs = fsspec.filesystem("memory")
        fs.rm_file(f"{store.url.removeprefix('memory:/')}/{patient.expert}/1/manifest.json")
        assert "no such version" in expect(patient, Check.EXPERT_FILES, patient.expert).detail

    def test_away(self, patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.elsewhere(patient, tmp_path)

        def refused(*_: object, **__: object) -> None:
            raise ConnectionRefusedError(111, "Connection refused")

        monkeypatch.setattr(MemoryFileSystem, "cat_file", refused)
        found = expect(patient, Check.EXPERT_STORE, "system")
        assert "cannot be reached" in found.detail
        assert "LETHE_EXPERTS_DIR" in found.remedy


class TestReplicas:
    def test_none(self, patient: Patient) -> None:
        patient.break_(f"UPDATE replicas SET heartbeat_at = {AGO}")
        expect(patient, Check.NO_REPLICA, "system")

    def _behind(self, patient: Patient) -> None:
        patient.break_("UPDATE replicas SET generation = generation - 1")
        patient.break_("INSERT INTO acknowledgements SELECT generation, id FROM replicas")

    def test_behind(self, patient: Patient) -> None:
        self._behind(patient)
        patient.break_(f"UPDATE generations SET created_at = {AGO}")
        expect(patient, Check.REPLICA_BEHIND, patient.replica)

    def test_a_generation_just_made_is_given_time(self, patient: Patient) -> None:
        self._behind(patient)
        patient.break_("UPDATE generations SET created_at = clock_timestamp()")
        assert patient.findings() == []

    def test_error(self, patient: Patient) -> None:
        patient.break_("UPDATE replicas SET error = 'disk on fire', error_generation = 7")
        assert "disk on fire" in expect(patient, Check.REPLICA_ERROR, patient.replica).detail

    def test_never_acknowledged(self, patient: Patient) -> None:
        patient.break_("DELETE FROM acknowledgements")
        expect(patient, Check.UNACKNOWLEDGED, patient.replica)

    def test_beyond_the_newest(self, patient: Patient) -> None:
        patient.break_("UPDATE replicas SET generation = 99")
        patient.break_("INSERT INTO acknowledgements SELECT 99, id FROM replicas")
        expect(patient, Check.UNACKNOWLEDGED, patient.replica)

    def test_another_base_model(self, patient: Patient) -> None:
        patient.break_("UPDATE replicas SET model_fingerprint = repeat('e', 64)")
        expect(patient, Check.REPLICA_MODEL, patient.replica)

    def test_two_base_models(self, patient: Patient) -> None:
        patient.break_(
            "INSERT INTO replicas (id, name, model_fingerprint, generation, heartbeat_at) "
            "SELECT 'rep_x', name, repeat('e', 64), generation, heartbeat_at FROM replicas"
        )
        patient.break_(
            "INSERT INTO acknowledgements SELECT generation, 'rep_x' FROM replicas WHERE id = 'rep_x'"
        )
        expect(patient, Check.REPLICA_MODEL, "system")


class TestTrail:
    def test_edited(self, patient: Patient) -> None:
        patient.break_("UPDATE audit_events SET tenant_id = 'ten_x' WHERE seq = 9")
        assert "does not match its hash" in expect(patient, Check.CHAIN, "event 9").detail

    def test_rewritten_from_there_on(self, patient: Patient) -> None:
        patient.break_("UPDATE audit_events SET tenant_id = 'ten_x' WHERE seq = 9")
        rehash(patient.session)
        (found,) = [f for f in patient.findings() if f.check is Check.CHAIN]
        assert "diverged" in found.detail

    def test_cut_off(self, patient: Patient) -> None:
        last = patient.looked().events
        patient.break_("DELETE FROM audit_events WHERE seq = :last", last=last)
        assert Check.CHAIN in {check for check, _ in patient.found()}

    def test_nothing_signed_for_long(self, patient: Patient) -> None:
        patient.break_("DELETE FROM audit_checkpoints")
        patient.break_(f"UPDATE audit_events SET created_at = {AGO}")
        rehash(patient.session)
        expect(patient, Check.CHECKPOINT, "system")

    def test_not_signed_yet(self, patient: Patient) -> None:
        patient.break_("DELETE FROM audit_checkpoints")
        assert patient.findings() == []

    def test_personal_under_a_hash(self, patient: Patient) -> None:
        audit = AuditService(patient.session)
        audit.append("request.note", actor="system:test", payload={"reason": "Elodie Brandt asked"})
        seq, _ = audit.head()
        assert "reason" in expect(patient, Check.PERSONAL, f"event {seq}").detail

    @pytest.mark.parametrize(
        ("changes", "member"),
        [
            ({"actor": "Elodie Brandt"}, "actor"),
            ({"actor": "worker: elodie brandt"}, "actor"),
            ({"subject_id": "Elodie Brandt"}, "subject_id"),
            ({"payload": {"name": "elodie"}}, "name"),
            ({"payload": {"to": "Elodie Brandt"}}, "to"),
            ({"payload": {"reason_token": "elodie"}}, "reason_token"),
            ({"payload": {"n": {"who": "elodie"}}}, "n"),
            ({"payload": {"scopes": ["chat", "Elodie Brandt"]}}, "scopes"),
            (
                {"payload": {"from": "a", "to": "b", "n": 3, "reason_token": "a" * 64, "scopes": ["chat"]}},
                None,
            ),
            ({"actor": "worker:host-1.example:4242"}, None),
        ],
    )
    def test_forms(self, changes: dict[str, object], member: str | None) -> None:
        values = {"actor": "system:cli", "subject_id": "req_" + "0" * 32, "payload": {}} | changes
        assert suspicious(AuditEvent(**values)) == member


class TestSystem:
    def test_database_down(self, built: Sound) -> None:
        settings = built.settings.model_copy(update={"database_url": "postgresql+psycopg://x@127.0.0.1:1/x"})
        engine = create_engine_from(settings)
        report = examine(session_factory(engine), settings)
        engine.dispose()
        assert [f.check for f in report.findings] == [Check.DATABASE]
        broken.add(Check.DATABASE)

    def test_no_tables(self, built: Sound, empty_database: str) -> None:
        engine = create_engine_from(built.settings.model_copy(update={"database_url": empty_database}))
        report = examine(session_factory(engine), built.settings)
        engine.dispose()
        assert [f.check for f in report.findings] == [Check.SCHEMA]
        assert "lethe migrate" in report.findings[0].remedy
        broken.add(Check.SCHEMA)

    def test_old_schema(self, patient: Patient) -> None:
        patient.break_("UPDATE alembic_version SET version_num = '0001'")
        expect(patient, Check.SCHEMA, "system")

    def test_redis_down(self, built: Sound) -> None:
        settings = built.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        report = examine(built.sessions, settings)
        assert Check.BROKER in {f.check for f in report.findings}
        broken.add(Check.BROKER)


class TestCommand:
    @pytest.fixture(autouse=True)
    def environment(self, built: Sound, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("LETHE_DATABASE_URL", built.settings.database_url)
        monkeypatch.setenv("LETHE_REDIS_URL", built.settings.redis_url)
        monkeypatch.setenv("LETHE_EXPERTS_DIR", str(built.settings.experts_dir))
        monkeypatch.setenv("LETHE_REPLICA_LEASE_SECONDS", "3600")
        monkeypatch.chdir(tmp_path)
        get_settings.cache_clear()
        yield
        get_settings.cache_clear()

    def test_clean(self) -> None:
        done = lethe("doctor")
        assert done.exit_code == 0, done.output
        assert "no finding(s)" in done.stderr
        report = json.loads(lethe("doctor", "--json").stdout)
        assert report["clean"] is True
        assert report["looked_at"]["requests"] == 7
        assert set(report["checks"]) == {check.value for check in Check}

    def test_findings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built: Sound) -> None:
        monkeypatch.setenv("LETHE_EXPERTS_DIR", str(tmp_path / "nothing"))
        done = lethe("doctor")
        assert done.exit_code == 1
        assert f"expert-files  {built.expert}" in done.stdout
        assert "What to do: Restore the directory" in done.stdout
        get_settings.cache_clear()
        answer = lethe("doctor", "--json")
        assert answer.exit_code == 1
        (finding,) = json.loads(answer.stdout)["findings"]
        assert set(finding) == {"check", "subject", "detail", "remedy"}


def test_every_check_was_seen_to_find_something(request: pytest.FixtureRequest) -> None:
    """A check that no test here broke would be one that cannot fail."""
    if request.config.option.keyword or any("::" in argument for argument in request.config.args):
        pytest.skip("only some of this module's tests were asked for")
    assert broken == set(Check)


def test_every_check_says_what_to_do() -> None:
    for check in Check:
        assert Finding(check, "x", "").remedy
