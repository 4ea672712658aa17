"""Engines run a router: in this process (`local`) or on serving replicas over HTTP."""
