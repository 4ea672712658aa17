"""Removal requests: who asks, for what to be forgotten, and how far it has come."""
