"""SQL of tenants and API keys."""

from datetime import datetime

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.db.models import ApiKey, BrowserSession, Tenant
from app.db.repository import Repository
from app.kit.ids import new_id


class KeyRepository(Repository[ApiKey]):
    """Keys by their hash."""

    model = ApiKey

    def by_hash(self, key_hash: str) -> tuple[ApiKey, str] | None:
        """Return a key and the name of its tenant."""
        row = self.session.execute(
            select(ApiKey, Tenant.name)
            .join(Tenant, Tenant.id == ApiKey.tenant_id)
            .where(ApiKey.key_hash == key_hash)
        ).one_or_none()
        return (row[0], row[1]) if row else None

    def by_id(self, key_id: str, *, lock: bool = False) -> ApiKey | None:
        """Return a key by its id; with `lock`, nobody else changes it before this transaction ends."""
        statement = select(ApiKey).where(ApiKey.id == key_id)
        return self.first(statement.with_for_update() if lock else statement)

    def tenant_name(self, tenant_id: str) -> str:
        """Return the name of a tenant."""
        return self.session.execute(select(Tenant.name).where(Tenant.id == tenant_id)).scalar_one()

    def listed(self) -> list[tuple[ApiKey, str]]:
        """Return every key with the name of its tenant, the oldest first."""
        rows = self.session.execute(
            select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id).order_by(ApiKey.id)
        )
        return [(key, tenant) for key, tenant in rows]

    def tenant(self, name: str) -> str:
        """Return the id of the tenant with this name, made if there is none."""
        self.session.execute(
            insert(Tenant).values(id=new_id("ten"), name=name).on_conflict_do_nothing(index_elements=["name"])
        )
        return self.session.execute(select(Tenant.id).where(Tenant.name == name)).scalar_one()

    def touch(self, key_id: str, now: datetime, unless_after: datetime) -> None:
        """Note that the key was used, unless that was noted after `unless_after`."""
        self.session.execute(
            update(ApiKey)
            .where(
                ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < unless_after)
            )
            .values(last_used_at=now)
            .execution_options(synchronize_session=False)
        )

    def revoke(self, key_id: str, now: datetime) -> None:
        """Mark the key as no longer valid."""
        self.session.execute(
            update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
        )


class SessionRepository(Repository[BrowserSession]):
    """Browsers that logged in."""

    model = BrowserSession

    def live(self, session_id: str, now: datetime) -> tuple[BrowserSession, ApiKey, str] | None:
        """Return a session that has neither ended nor expired, its key, and the name of the tenant."""
        row = self.session.execute(
            select(BrowserSession, ApiKey, Tenant.name)
            .join(ApiKey, ApiKey.id == BrowserSession.key_id)
            .join(Tenant, Tenant.id == ApiKey.tenant_id)
            .where(
                BrowserSession.id == session_id,
                BrowserSession.ended_at.is_(None),
                BrowserSession.expires_at > now,
            )
        ).one_or_none()
        return (row[0], row[1], row[2]) if row else None

    def end(self, session_id: str, now: datetime) -> None:
        """Mark the session as over."""
        self.session.execute(
            update(BrowserSession)
            .where(BrowserSession.id == session_id, BrowserSession.ended_at.is_(None))
            .values(ended_at=now)
        )

    def forget_expired(self, now: datetime) -> None:
        """Delete sessions that nobody could use any more."""
        self.session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= now))
