"""Settings: what is refused at start-up, and that the message names the variable."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.kit.errors import ConfigurationError
from app.settings import load_settings

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class TestLoadSettings:
    def test_development_defaults_work(self) -> None:
        settings = load_settings(_env_file=None)
        assert settings.env == "development"
        assert settings.evidence_cipher().key_id

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_MAX_PICTURES", "3")
        monkeypatch.setenv("LETHE_DATABASE_URL", "postgres://u:p@db/x")
        settings = load_settings(_env_file=None)
        assert settings.max_pictures == 3
        assert settings.database_url == "postgresql+psycopg://u:p@db/x"

    @pytest.mark.parametrize(
        ("values", "variable"),
        [
            ({"env": "production", "evidence_key": KEY}, "LETHE_SECRET_KEY"),
            ({"env": "production", "evidence_key": KEY, "secret_key": "short"}, "LETHE_SECRET_KEY"),
            ({"env": "production", "secret_key": "s" * 32}, "LETHE_EVIDENCE_KEY"),
            ({"evidence_key": "AAAA"}, "LETHE_EVIDENCE_KEY"),
            ({"evidence_keys_previous": ["AAAA"]}, "LETHE_EVIDENCE_KEYS_PREVIOUS"),
            ({"signing_key": "AAAA"}, "LETHE_SIGNING_KEY"),
            ({"signing_keys_retired": ["AAAA"]}, "LETHE_SIGNING_KEYS_RETIRED"),
            ({"checkpoint_seconds": 0}, "LETHE_CHECKPOINT_SECONDS"),
            ({"rate_limit": "often"}, "LETHE_RATE_LIMIT"),
            ({"database_url": "sqlite://"}, "LETHE_DATABASE_URL"),
            ({"redis_url": "localhost"}, "LETHE_REDIS_URL"),
            ({"max_pictures": 0}, "LETHE_MAX_PICTURES"),
            ({"min_forget_quality": 1.1}, "LETHE_MIN_FORGET_QUALITY"),
            ({"review_policy": "never"}, "LETHE_REVIEW_POLICY"),
            ({"experts_dir": "nowhere://bucket"}, "LETHE_EXPERTS_DIR has the scheme 'nowhere'"),
            ({"experts_dir": "simplecache::s3://bucket"}, "LETHE_EXPERTS_DIR is not like s3://"),
            ({"experts_dir": "memory://"}, "LETHE_EXPERTS_DIR is not like s3://"),
            ({"experts_dir": "file://experts"}, "LETHE_EXPERTS_DIR is not like file:///directory"),
            ({"experts_dir": "sftp://me:AAAA@host/experts"}, "password .* LETHE_EXPERTS_OPTIONS"),
            ({"experts_url": "memory://experts"}, "set LETHE_EXPERTS_DIR"),
            ({"experts_options": '["AAAA"]'}, "LETHE_EXPERTS_OPTIONS: must be a JSON object"),
            ({"experts_options": "AAAA"}, "LETHE_EXPERTS_OPTIONS: must be a JSON object"),
            ({"experts_cache_bytes": 1}, "LETHE_EXPERTS_CACHE_BYTES"),
            (
                {
                    "env": "production",
                    "evidence_key": KEY,
                    "secret_key": "s" * 32,
                    "experts_dir": "memory://e",
                },
                "LETHE_EXPERTS_DIR=memory:// ends with the process",
            ),
        ],
    )
    def test_refused(self, values: dict[str, object], variable: str) -> None:
        with pytest.raises(ConfigurationError, match=variable) as raised:
            load_settings(_env_file=None, **values)
        assert "AAAA" not in str(raised.value)
        assert "short" not in str(raised.value)

    def test_production_with_secrets(self) -> None:
        settings = load_settings(_env_file=None, env="production", evidence_key=KEY, secret_key="s" * 32)
        assert "s" * 32 not in repr(settings)
        assert KEY not in repr(settings)

    @pytest.mark.parametrize(
        ("env", "given", "in_force"),
        [
            ("development", None, None),
            ("production", None, "1200/minute"),
            ("production", "", "1200/minute"),
            ("production", "none", None),
            ("development", "2/second;9/hour", "2/second;9/hour"),
        ],
    )
    def test_rate_limit(self, env: str, given: str | None, in_force: str | None) -> None:
        secrets = {"evidence_key": KEY, "secret_key": "s" * 32}
        settings = load_settings(_env_file=None, env=env, rate_limit=given, **secrets)
        assert settings.rate_limit_in_force == in_force

    def test_signing_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As compose hands them on: empty if they are not set; public halves with or without padding."""
        monkeypatch.setenv("LETHE_SIGNING_KEY", "")
        monkeypatch.setenv("LETHE_SIGNING_KEYS_RETIRED", f'["{KEY}", "{KEY.rstrip("=")}"]')
        settings = load_settings(_env_file=None)
        assert settings.signing_key is None
        assert settings.signing_keys_retired == (KEY, KEY)
        monkeypatch.setenv("LETHE_SIGNING_KEY", KEY)
        assert KEY not in repr(load_settings(_env_file=None).signing_key)

    def test_cannot_be_changed(self) -> None:
        settings = load_settings(_env_file=None)
        with pytest.raises(ValidationError):
            settings.seed = 1


class TestVllm:
    def test_several_servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_ENGINE", "vllm")
        monkeypatch.setenv("LETHE_VLLM_URLS", "http://gpu1:8000/v1, https://gpu2/ ,")
        monkeypatch.setenv("LETHE_VLLM_API_KEY", "")
        settings = load_settings(_env_file=None)
        assert settings.vllm_urls == ("http://gpu1:8000", "https://gpu2")
        assert settings.vllm_api_key is None

    @pytest.mark.parametrize(
        ("urls", "told"),
        [
            ("", "LETHE_ENGINE=vllm needs LETHE_VLLM_URLS"),
            ("gpu1:8000", "LETHE_VLLM_URLS: 'gpu1:8000' is not like http://host:8000"),
            ("http://a,http://a/v1", "LETHE_VLLM_URLS: names a server twice"),
        ],
    )
    def test_unusable(self, monkeypatch: pytest.MonkeyPatch, urls: str, told: str) -> None:
        monkeypatch.setenv("LETHE_ENGINE", "vllm")
        monkeypatch.setenv("LETHE_VLLM_URLS", urls)
        with pytest.raises(ConfigurationError, match=re.escape(told)):
            load_settings(_env_file=None)


class TestExpertsDirectory:
    def test_a_directory(self) -> None:
        settings = load_settings(_env_file=None, experts_dir="/srv/experts")
        assert (settings.experts_dir, settings.experts_url) == (Path("/srv/experts"), None)

    @pytest.mark.parametrize("url", ["file:///srv/my%20experts", "file://localhost/srv/my%20experts"])
    def test_a_directory_by_url(self, url: str) -> None:
        settings = load_settings(_env_file=None, experts_dir=url)
        assert (settings.experts_dir, settings.experts_url) == (Path("/srv/my experts"), None)

    def test_a_url_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_EXPERTS_DIR", "memory://bucket/prefix/")
        monkeypatch.setenv("LETHE_EXPERTS_CACHE", "/var/cache/lethe")
        monkeypatch.setenv("LETHE_EXPERTS_OPTIONS", '{"secret": "hidden"}')
        settings = load_settings(_env_file=None)
        assert settings.experts_url == "memory://bucket/prefix"
        assert settings.experts_dir == Path("/var/cache/lethe"), "where copies and work lie"
        assert settings.experts_storage_options() == {"secret": "hidden"}
        assert "hidden" not in repr(settings)

    @pytest.mark.parametrize(
        ("url", "install"),
        [
            ("s3://bucket/experts", r"pip install 'lethe\[s3\]'"),
            ("gs://bucket/experts", "pip install gcsfs"),
            ("az://container/experts", "pip install adlfs"),
        ],
    )
    def test_without_the_package(self, url: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.settings.find_spec", lambda _: None)
        with pytest.raises(ConfigurationError, match=install):
            load_settings(_env_file=None, experts_dir=url)
