"""The embedded stack: a real Postgres and a real Valkey from wheels, the API and the worker."""
