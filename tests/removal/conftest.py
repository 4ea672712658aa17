from tests.service import manual, own_settings, service, sessions, shared  # noqa: F401
