"""The policy in force: what the settings say, and what operators have set over it, version by version.

A request takes its snapshot when it is approved and is judged by that for ever; a change concerns those that
are approved after it.
"""

from collections.abc import Mapping
from typing import cast

from sqlalchemy import Integer, func, select
from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.audit.service import AuditService
from app.db.models import RemovalRequest
from app.db.policy_models import PolicyVersion
from app.db.repository import Page, Repository, lock_named
from app.kit.canonical import JsonValue
from app.kit.ids import new_id
from app.removal.errors import PolicyChanged, PolicyOfAll
from app.removal.records import Policy
from app.removal.schemas import PolicyChange, PolicyRules, PolicyView
from app.removal.states import FINAL, State
from app.settings import Settings

RULES = tuple(PolicyRules.model_fields)
"""What operators may set, by the names that the snapshot has for it."""


_NEWEST = select(PolicyVersion).order_by(PolicyVersion.version.desc()).limit(1)
_VERSIONS = PolicyVersion.__table__
_RULES = select(_VERSIONS.c.version, _VERSIONS.c.rules).order_by(_VERSIONS.c.version.desc()).limit(1)


class PolicyRepository(Repository[PolicyVersion]):
    """Versions of the policy."""

    model = PolicyVersion

    def newest(self) -> PolicyVersion | None:
        """Return the newest version; None while only the settings count."""
        return self.session.scalars(_NEWEST).first()

    def rules(self) -> tuple[int, Mapping[str, JsonValue]]:
        """Return the newest version's number and rules; (0, none) while only the settings count."""
        row = self.session.execute(_RULES).first()
        return (row[0], row[1]) if row is not None else (0, {})

    def history(self, *, after: int | None, limit: int) -> Page[PolicyVersion]:
        """Return versions, newest first."""
        return self.page(select(PolicyVersion), PolicyVersion.version, after=after, limit=limit)

    def under_way(self, tenant_id: str | None) -> dict[int, int]:
        """Return how many approved requests that are not done yet (of a tenant) have which version."""
        version = func.coalesce(RemovalRequest.policy["version"].astext.cast(Integer), 0)
        done = {*FINAL, State.ACTIVE}
        rows = select(version, func.count()).where(
            RemovalRequest.policy.is_not(None), RemovalRequest.state.not_in(done)
        )
        if tenant_id is not None:
            rows = rows.where(RemovalRequest.tenant_id == tenant_id)
        return {row[0]: row[1] for row in self.session.execute(rows.group_by(version).order_by(version))}


class PolicyService:
    """One transaction's view of the policy. It never commits."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._rows = PolicyRepository(session)
        self._read: tuple[int, Mapping[str, JsonValue]] | None = None  # in this transaction, by `in_force`

    def in_force(self, model_fingerprint: str | None = None) -> Policy:
        """Return the policy that an approval takes its snapshot of now."""
        if self._read is None:
            self._read = self._rows.rules()
        return Policy.of(self._settings, model_fingerprint).under(*self._read)

    def view(self) -> PolicyView:
        """Return the rules in force, and who set which of them."""
        newest = self._rows.newest()
        rules = self.in_force().as_json()
        settings = self._settings
        return PolicyView.model_validate(
            {name: value for name, value in rules.items() if name in PolicyView.model_fields}
            | {
                "overridden": [name for name in RULES if newest is not None and name in newest.rules],
                "changed_at": newest and newest.created_at,
                "changed_by": newest and newest.changed_by,
                "reason": newest and newest.reason,
                "response_days": settings.response_days,
                "evidence_retention_days": settings.evidence_retention_days,
                "max_pictures": settings.max_pictures,
                "max_picture_bytes": settings.max_picture_bytes,
            }
        )

    def change(self, principal: Principal, change: PolicyChange) -> PolicyView:
        """Make the next version, audited; what is in force already makes none, so a repeat is harmless.

        Raises:
            PolicyOfAll: 403, the key is not of the tenant that sees all requests.
            PolicyChanged: 409, somebody made a version after the one that `based_on` names.
        """
        if not principal.root:
            raise PolicyOfAll("The policy concerns the requests of every tenant.")
        lock_named(self._session, "policy")
        self._read = None
        newest = self._rows.newest()
        version, rules = (newest.version, newest.rules) if newest is not None else (0, {})
        wanted = cast("dict[str, JsonValue]", change.rules.model_dump(exclude_none=True))
        if wanted == rules:
            return self.view()
        if change.based_on != version:
            raise PolicyChanged(
                f"The policy is at version {version}, the change is based on version {change.based_on}.",
                extra={"version": version},
            )
        made = self._rows.add(
            PolicyVersion(
                version=version + 1,
                id=new_id("pol"),
                rules=wanted,
                reason=change.reason,
                changed_by=principal.key_id,
            )
        )
        self._read = made.version, made.rules
        self._audit(made, rules)
        return self.view()

    def history(self, *, after: int | None, limit: int) -> Page[PolicyVersion]:
        """Return what was set when, by whom and why, newest first."""
        return self._rows.history(after=after, limit=limit)

    def under_way(self, tenant_id: str | None) -> dict[int, int]:
        """Return how many approved requests that are not done yet are judged by which version."""
        return self._rows.under_way(tenant_id)

    def _audit(self, made: PolicyVersion, before: Mapping[str, JsonValue]) -> None:
        """Say which rules changed and what is in force now; the reason only as a salted token."""
        audit = AuditService(self._session)
        now = self.in_force().as_json()
        changed = [name for name in RULES if made.rules.get(name) != before.get(name)]
        payload: dict[str, JsonValue] = {name: now[name] for name in RULES}
        payload |= {
            "version": made.version,
            "changed": list(changed),
            "reason_token": audit.token(made.id, made.reason),
        }
        audit.append("policy.change", actor=made.changed_by, subject_id=made.id, payload=payload)
