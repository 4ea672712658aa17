from tests.service import manual, own_settings, place, service, sessions, shared  # noqa: F401
