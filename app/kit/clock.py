"""Time: always aware, always UTC."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the current time as an aware UTC datetime (microseconds, as Postgres keeps it)."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Return `moment` in RFC 3339 form, UTC, with exactly six fractional digits and `Z`.

    The fixed precision makes the text the same before and after a trip through the database, which the
    audit chain relies on.
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
