"""The audit trail: hash-chained events with nothing personal under a hash."""
