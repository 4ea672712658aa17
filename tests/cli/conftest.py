from tests.service import manual, own_settings, place, service, sessions, shared  # noqa: F401
from tests.test_cli import own_home  # noqa: F401
