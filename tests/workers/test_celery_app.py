"""The Celery settings that other people's outages taught (docs: SERVICE, Celery and Redis)."""

from __future__ import annotations

from app.settings import Settings
from workers import celery_app
from workers.celery_app import VISIBILITY_SECONDS, create_celery


class TestCreateCelery:
    def test_a_lost_worker_loses_no_task(self, settings: Settings) -> None:
        conf = create_celery(settings).conf
        assert conf.task_acks_late
        assert conf.task_reject_on_worker_lost
        assert conf.worker_prefetch_multiplier == 1

    def test_visibility_timeout_in_all_places(self, settings: Settings) -> None:
        conf = create_celery(settings).conf
        assert conf.broker_transport_options["visibility_timeout"] == VISIBILITY_SECONDS
        assert conf.result_backend_transport_options["visibility_timeout"] == VISIBILITY_SECONDS
        assert conf.visibility_timeout == VISIBILITY_SECONDS

    def test_one_spawned_child_with_time_to_load_the_model(self, settings: Settings) -> None:
        conf = create_celery(settings).conf
        assert (conf.worker_pool_start_method, conf.worker_concurrency) == ("spawn", 1)
        assert conf.worker_proc_alive_timeout >= 600
        assert 0 < conf.worker_soft_shutdown_timeout < 30

    def test_dead_connections_are_noticed(self, settings: Settings) -> None:
        options = create_celery(settings).conf.broker_transport_options
        assert options["socket_timeout"] > 0
        assert options["socket_keepalive"]

    def test_nothing_but_json_is_accepted(self, settings: Settings) -> None:
        assert create_celery(settings).conf.accept_content == ["json"]

    def test_the_task_has_the_name_the_outbox_sends(self) -> None:
        celery_app.app.loader.import_default_modules()
        assert "lethe.process_request" in celery_app.app.tasks
