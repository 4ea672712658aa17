"""What can be found, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Check(StrEnum):
    """Everything that is looked at; each is one thing that must always be true."""

    DATABASE = "database"
    SCHEMA = "schema"
    BROKER = "broker"
    STUCK = "request-stuck"
    JOB_UNPUBLISHED = "job-unpublished"
    HISTORY = "state-without-event"
    LINK = "link-broken"
    ATTEMPTS = "attempts-over-cap"
    EVIDENCE_KEY = "evidence-key-missing"
    NO_EXPERT = "active-without-expert"
    SEVERAL_EXPERTS = "several-experts"
    STRAY_EXPERT = "expert-without-request"
    MISCOUNTED = "generation-miscounted"
    UNVERIFIED = "active-unverified"
    UNPROTECTED = "approved-unprotected"
    NEEDLESS_PROTECTION = "protection-needless"
    EXPERT_FILES = "expert-files"
    EXPERT_STORE = "experts-store"
    NO_REPLICA = "no-replica"
    REPLICA_BEHIND = "replica-behind"
    REPLICA_ERROR = "replica-error"
    REPLICA_MODEL = "replica-model"
    UNACKNOWLEDGED = "replica-unacknowledged"
    CHAIN = "audit-chain"
    CHECKPOINT = "checkpoint-overdue"
    PERSONAL = "personal-under-hash"


_REMEDIES: Final = MappingProxyType(
    {
        Check.DATABASE: "Start the database, or set LETHE_DATABASE_URL; check with `pg_isready`.",
        Check.SCHEMA: "Run `lethe migrate`, then restart API and workers.",
        Check.BROKER: "Start Redis, or set LETHE_REDIS_URL. Nothing is lost: jobs are published again from "
        "the database.",
        Check.STUCK: "Start a worker, or look at its log: its sweeper takes such requests up again. "
        "`POST /requests/{id}/cancel` ends one.",
        Check.JOB_UNPUBLISHED: "Start a worker, whose dispatcher publishes jobs, and see that it reaches "
        "Redis.",
        Check.HISTORY: "Somebody changed the state past the service. Compare with an export of the audit "
        "log or "
        "a backup, and restore the request's row and events from there.",
        Check.LINK: "Restore the request it follows from a backup, or cancel this one and file it again.",
        Check.ATTEMPTS: "Look at the worker's log for why attempts end without a result, then "
        "`POST /requests/{id}/retry` or cancel it.",
        Check.EVIDENCE_KEY: "Add the key it was encrypted under to LETHE_EVIDENCE_KEYS_PREVIOUS, and "
        "restart.",
        Check.NO_EXPERT: "Roll back to the newest generation (`lethe rollback`): its expert comes back. "
        "If there is none, revoke the request and file it again.",
        Check.SEVERAL_EXPERTS: "Revoke the request and file it again: its next generation has one expert.",
        Check.STRAY_EXPERT: "Its request has ended, so nobody may be refused for it: roll back to the "
        "newest generation (`lethe rollback`), which leaves it out.",
        Check.MISCOUNTED: "Somebody changed the registry past the service: roll back to the newest "
        "generation (`lethe rollback`), and compare its experts with the audit log.",
        Check.UNVERIFIED: "Do not rely on it: revoke the request and file it again, so that it is verified.",
        Check.UNPROTECTED: "The subject is given away meanwhile: roll back to the newest generation "
        "(`lethe rollback`), which protects it again.",
        Check.NEEDLESS_PROTECTION: "A subject is refused for a request that does not ask for it: restore the "
        "request's row from a backup, or revoke it.",
        Check.EXPERT_FILES: "Restore the directory from a backup of LETHE_EXPERTS_DIR. Without one: revoke "
        "the "
        "request and file it again. Replicas keep serving the generation before.",
        Check.EXPERT_STORE: "Correct LETHE_EXPERTS_DIR, LETHE_EXPERTS_OPTIONS or the permissions, or wait "
        "until the store answers. Replicas serve what they hold, workers try again.",
        Check.NO_REPLICA: "Start an API process: nobody answers `/chat` and nobody acknowledges.",
        Check.REPLICA_BEHIND: "Look at its log; restart it. It answers from an older generation until then.",
        Check.REPLICA_ERROR: "Correct what it says; it tries again at every poll.",
        Check.REPLICA_MODEL: "Give every replica and worker the same LETHE_MODEL; experts of another model "
        "must "
        "be trained again.",
        Check.UNACKNOWLEDGED: "Restart the replica: what it says that it serves is not what it acknowledged.",
        Check.CHAIN: "Somebody changed the audit log. Keep the database as it is, compare with an export or "
        "backup, and find out who; see docs/certificates.md.",
        Check.CHECKPOINT: "Start an API process, which issues checkpoints, or `GET /audit/checkpoint`; "
        "look at "
        "its log for `no checkpoint`.",
        Check.PERSONAL: "Report it as a bug: this event cannot be erased without breaking the chain.",
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    Args:
        check: what was looked at.
        subject: id of the request, expert, replica or event it is about; or `system`.
        detail: what was found; nothing personal.
    """

    check: Check
    subject: str
    detail: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self.check].replace("{id}", self.subject)

    def as_json(self) -> dict[str, str]:
        """Return the finding for scripts."""
        return {
            "check": self.check.value,
            "subject": self.subject,
            "detail": self.detail,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found, and what was looked at."""

    findings: tuple[Finding, ...]
    requests: int
    experts: int
    replicas: int
    events: int

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, object]:
        """Return the report for scripts."""
        return {
            "clean": self.clean,
            "looked_at": {
                "requests": self.requests,
                "experts": self.experts,
                "replicas": self.replicas,
                "events": self.events,
            },
            "checks": [check.value for check in Check],
            "findings": [finding.as_json() for finding in self.findings],
        }
