"""API keys."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app.accounts.service import SCOPES, authenticate, create_key, revoke_key
from app.audit.service import AuditService
from app.db.models import ApiKey, Tenant
from app.db.session import SessionFactory
from app.kit.clock import utcnow
from app.kit.errors import InvalidInput, NotFound, Unauthenticated


class TestCreateKey:
    def test_shown_once_stored_as_hash(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            made = create_key(session, tenant="acme", scopes=["owner", "chat"], name="first")
        assert made.secret.startswith("lethe_")
        with sessions() as session:
            row = session.get_one(ApiKey, made.id)
            assert made.secret not in str(vars(row))
            assert made.secret.startswith(row.prefix)
            assert row.scopes == ["chat", "owner"]
            assert AuditService(session).verify().events == 1

    def test_one_tenant_for_a_name(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            a = create_key(session, tenant="acme", scopes=["owner"])
            b = create_key(session, tenant="acme", scopes=["chat"])
            assert a.tenant_id == b.tenant_id
            assert session.scalar(select(func.count()).select_from(Tenant)) == 1

    @pytest.mark.parametrize("scopes", [[], ["admin"], ["owner", "root"]])
    def test_unknown_scopes(self, sessions: SessionFactory, scopes: list[str]) -> None:
        with pytest.raises(InvalidInput) as raised, sessions.begin() as session:
            create_key(session, tenant="acme", scopes=scopes)
        assert all(scope in raised.value.hint for scope in SCOPES)

    @pytest.mark.parametrize("tenant", ["", "  ", "x" * 101])
    def test_tenant_names(self, sessions: SessionFactory, tenant: str) -> None:
        with pytest.raises(InvalidInput), sessions.begin() as session:
            create_key(session, tenant=tenant, scopes=["owner"])


class TestAuthenticate:
    def test_valid(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            made = create_key(session, tenant="acme", scopes=["owner"])
        who = authenticate(sessions, made.secret)
        assert (who.key_id, who.tenant_id, who.scopes) == (made.id, made.tenant_id, frozenset({"owner"}))
        assert who.sees == made.tenant_id

    def test_root_sees_all(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            made = create_key(session, tenant="root", scopes=["operator"])
        assert authenticate(sessions, made.secret).sees is None

    @pytest.mark.parametrize("secret", ["", "lethe_x", "\0", "é" * 50])
    def test_unknown(self, sessions: SessionFactory, secret: str) -> None:
        with pytest.raises(Unauthenticated):
            authenticate(sessions, secret)

    def test_expired(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            made = create_key(session, tenant="acme", scopes=["owner"], expires_in=timedelta(seconds=-1))
        with pytest.raises(Unauthenticated):
            authenticate(sessions, made.secret)

    def test_revoked(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            made = create_key(session, tenant="acme", scopes=["owner"])
        with sessions.begin() as session:
            revoke_key(session, made.id)
        with pytest.raises(Unauthenticated):
            authenticate(sessions, made.secret)

    def test_revoke_unknown(self, sessions: SessionFactory) -> None:
        with pytest.raises(NotFound), sessions.begin() as session:
            revoke_key(session, "key_x")

    def test_last_used_is_noted_once_a_minute(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            made = create_key(session, tenant="acme", scopes=["owner"])
        authenticate(sessions, made.secret)
        with sessions() as session:
            first = session.get_one(ApiKey, made.id).last_used_at
        authenticate(sessions, made.secret)
        with sessions() as session:
            assert first is not None
            assert session.get_one(ApiKey, made.id).last_used_at == first
        with sessions.begin() as session:
            session.execute(update(ApiKey).values(last_used_at=utcnow() - timedelta(minutes=2)))
        authenticate(sessions, made.secret)
        with sessions() as session:
            used = session.get_one(ApiKey, made.id).last_used_at
            assert used is not None
            assert used >= first
