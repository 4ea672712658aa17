"""Webhooks: telling tenants of every change of state, signed, in order, until it has arrived."""
