from tests.doctor.sound import built, patient  # noqa: F401
from tests.service import manual, own_settings, place, service, sessions, shared  # noqa: F401
