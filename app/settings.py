"""One Settings object for every process, read from variables with the prefix `LETHE_`."""

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from fsspec.registry import known_implementations, registry
from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.kit.crypto import EvidenceCipher, decode_key
from app.kit.errors import ConfigurationError

DEVELOPMENT_SECRET_KEY = "development-only-signing-secret"  # noqa: S105  refused in production
DEVELOPMENT_EVIDENCE_KEY = "bGV0aGUgZGV2ZWxvcG1lbnQgb25seSBldmlkZW5jZSE="
PRODUCTION_RATE_LIMIT = "1200/minute"
MIB = 1024 * 1024


class Settings(BaseSettings):
    """Everything that can be configured; see docs for the meaning of each. Immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix="LETHE_", env_file=".env", extra="ignore", frozen=True, protected_namespaces=()
    )

    env: Literal["development", "production"] = "development"
    model: str = "demo"
    device: str = "auto"
    engine: Literal["local", "vllm"] = "local"
    vllm_urls: Annotated[tuple[str, ...], NoDecode] = ()
    vllm_api_key: SecretStr | None = None
    vllm_experts_dir: str | None = None
    vllm_context: int | None = Field(default=None, ge=16)
    vllm_timeout_seconds: float = Field(default=60, gt=0)
    database_url: str = "postgresql+psycopg://lethe:lethe@localhost:5432/lethe"
    redis_url: str = "redis://localhost:6379/0"
    experts_dir: Path = Path("experts")
    """The experts themselves, or, where LETHE_EXPERTS_DIR is a URL (`experts_url`), local copies of them."""
    experts_url: str | None = None
    experts_cache: Path = Path("experts-cache")
    experts_cache_bytes: int = Field(default=20 * 1024 * MIB, ge=MIB)
    experts_options: SecretStr | None = None
    retain_data: Path | None = None
    seed: int = 0

    secret_key: SecretStr = SecretStr(DEVELOPMENT_SECRET_KEY)
    evidence_key: SecretStr = SecretStr(DEVELOPMENT_EVIDENCE_KEY)
    evidence_keys_previous: tuple[SecretStr, ...] = ()
    signing_key: SecretStr | None = None
    signing_keys_retired: tuple[str, ...] = ()
    checkpoint_seconds: float = Field(default=300, gt=0)

    review_policy: Literal["auto", "manual"] = "auto"
    recipe: str = "default"
    min_forget_quality: float = Field(default=0.98, ge=0, le=1)
    max_leak: float = Field(default=0.0, ge=0, le=1)
    min_neighbour_utility: float = Field(default=0.98, ge=0)
    min_base_identity: float = Field(default=1.0, ge=0, le=1)
    max_gate_fpr: float = Field(default=0.01, ge=0, le=1)
    min_gate_tpr: float = Field(default=0.98, ge=0, le=1)

    max_pictures: int = Field(default=16, ge=1)
    max_picture_bytes: int = Field(default=10 * MIB, ge=1)
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_text_chars: int = Field(default=20_000, ge=1)
    rate_limit: str | None = None
    max_body_bytes: int = Field(default=64 * MIB, ge=1024)
    max_connections: int = Field(default=1000, ge=1)
    head_seconds: float = Field(default=10, gt=0)
    body_seconds: float = Field(default=20, gt=0)
    unread_seconds: float = Field(default=30, gt=0)

    expert_slots: int = Field(default=256, ge=1)
    max_batch: int = Field(default=32, ge=1)
    max_waiting: int = Field(default=256, ge=1)
    chat_timeout_seconds: float = Field(default=120, gt=0)

    max_attempts: int = Field(default=3, ge=1)
    lease_seconds: float = Field(default=30, gt=0)
    replica_lease_seconds: float = Field(default=15, gt=0)
    registry_poll_seconds: float = Field(default=1, gt=0)
    outbox_poll_seconds: float = Field(default=0.2, gt=0)
    sweep_seconds: float = Field(default=5, gt=0)
    redelivery_seconds: float = Field(default=60, gt=0)
    idempotency_hours: int = Field(default=24, ge=1)
    response_days: int = Field(default=30, ge=1)
    otlp_endpoint: str | None = None
    webhook_private_addresses: bool = False
    webhook_retention_days: float = Field(default=30, gt=0, le=3650)
    webhook_poll_seconds: float = Field(default=0.5, gt=0)
    evidence_retention_days: float = Field(default=7, ge=0, le=3650)
    session_hours: float = Field(default=12, gt=0, le=168)

    @model_validator(mode="before")
    @classmethod
    def _experts_elsewhere(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Split LETHE_EXPERTS_DIR into the directory and the URL that it may be."""
        if given.get("experts_url") is not None:
            raise ValueError("experts_url: set LETHE_EXPERTS_DIR to the URL instead")
        where = given.get("experts_dir")
        if not isinstance(where, str) or "://" not in where:
            return given
        try:
            directory = _checked_store(where)
        except ValueError as error:
            raise ValueError(f"experts_dir: LETHE_EXPERTS_DIR {error}") from error
        if directory is not None:
            return given | {"experts_dir": directory}
        cache = given.get("experts_cache") or cls.model_fields["experts_cache"].default
        return given | {"experts_url": where.rstrip("/"), "experts_dir": cache}

    @field_validator("experts_options")
    @classmethod
    def _options(cls, given: SecretStr | None) -> SecretStr | None:
        if given is None:
            return None
        try:
            found = json.loads(given.get_secret_value())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError('must be a JSON object, such as {"endpoint_url": "https://minio.example:9000"}')
        return given

    @field_validator("database_url")
    @classmethod
    def _psycopg(cls, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
            raise ValueError("must be a postgresql:// URL")
        return f"postgresql+psycopg://{rest}"

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        return url

    @field_validator("vllm_urls", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        return tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given

    @field_validator("vllm_urls")
    @classmethod
    def _servers(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
                raise ValueError(f"{url!r} is not like http://host:8000; separate several by commas")
        plain = tuple(url.rstrip("/").removesuffix("/v1") for url in urls)
        if len(set(plain)) != len(plain):
            raise ValueError("names a server twice")
        return plain

    @field_validator("vllm_api_key", "vllm_experts_dir", "vllm_context", mode="before")
    @classmethod
    def _unset(cls, given: object) -> object:
        return given or None

    @field_validator("evidence_key", "evidence_keys_previous")
    @classmethod
    def _keys(cls, given: SecretStr | tuple[SecretStr, ...]) -> SecretStr | tuple[SecretStr, ...]:
        for key in given if isinstance(given, tuple) else (given,):
            try:
                decode_key(key.get_secret_value())
            except ValueError as error:
                raise ValueError(
                    f"needs keys of 32 bytes in base64, but one is {error}: `openssl rand -base64 32`"
                ) from error
        return given

    @field_validator("rate_limit")
    @classmethod
    def _rates(cls, text: str | None) -> str | None:
        if text and text != "none":
            try:
                parse_many(text)
            except ValueError as error:
                raise ValueError('is like "1200/minute", "20/second;1000/hour", or "none"') from error
        return text or None

    @field_validator("signing_key", "otlp_endpoint", "experts_options", mode="before")
    @classmethod
    def _empty_is_none(cls, given: object) -> object:
        return given or None  # compose hands on a variable that is not set as an empty one

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// URL, such as http://collector:4318")
        return url

    @field_validator("signing_key", "signing_keys_retired")
    @classmethod
    def _signing_keys(cls, given: SecretStr | tuple[str, ...] | None) -> SecretStr | tuple[str, ...] | None:
        keys = (
            [given.get_secret_value()] if isinstance(given, SecretStr) else [_padded(k) for k in given or ()]
        )
        for key in keys:
            try:
                decode_key(key)
            except ValueError as error:
                raise ValueError(
                    f"needs Ed25519 keys of 32 bytes in base64, but one is {error}: "
                    "`openssl rand -base64 32` makes one, `lethe audit keys` prints the public half as `x`"
                ) from error
        return tuple(keys) if isinstance(given, tuple) else given

    @model_validator(mode="after")
    def _no_default_secrets(self) -> Self:
        if self.env == "production":
            if self.secret_key.get_secret_value() == DEVELOPMENT_SECRET_KEY:
                raise ValueError("secret_key: set LETHE_SECRET_KEY, the development default is public")
            if len(self.secret_key.get_secret_value()) < 32:
                raise ValueError("secret_key: LETHE_SECRET_KEY needs at least 32 characters")
            if self.evidence_key.get_secret_value() == DEVELOPMENT_EVIDENCE_KEY:
                raise ValueError("evidence_key: set LETHE_EVIDENCE_KEY, the development default is public")
            if self.experts_url is not None and self.experts_url.startswith("memory:"):
                raise ValueError("experts_dir: LETHE_EXPERTS_DIR=memory:// ends with the process")
        return self

    @model_validator(mode="after")
    def _engine_has_servers(self) -> Self:
        if self.engine == "vllm" and not self.vllm_urls:
            raise ValueError("vllm_urls: LETHE_ENGINE=vllm needs LETHE_VLLM_URLS, such as http://gpu1:8000")
        return self

    @property
    def rate_limit_in_force(self) -> str | None:
        """How often one API key may ask; None for no limit, which outside production is the default."""
        default = PRODUCTION_RATE_LIMIT if self.env == "production" else None
        return None if self.rate_limit == "none" else self.rate_limit or default

    def experts_storage_options(self) -> dict[str, Any]:
        """Return what LETHE_EXPERTS_OPTIONS hands on to fsspec's file system."""
        given = self.experts_options
        return dict(json.loads(given.get_secret_value())) if given is not None else {}

    def evidence_cipher(self) -> EvidenceCipher:
        """Return the cipher for evidence and subjects under the configured keys."""
        return EvidenceCipher(
            decode_key(self.evidence_key.get_secret_value()),
            [decode_key(key.get_secret_value()) for key in self.evidence_keys_previous],
        )


def _padded(key: str) -> str:
    """Return base64 with the padding that a JWK's `x` lacks."""
    return key.rstrip("=") + "=" * (-len(key.rstrip("=")) % 4)


_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Which of our extras brings the package for a protocol."""


def _checked_store(url: str) -> Path | None:
    """Return the directory that a `file://` URL names, or None for another URL that can be used.

    Raises `ValueError`, what is wrong in words.
    """
    parts = urlsplit(url)
    if parts.scheme in ("file", "local"):
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ValueError("is not like file:///directory")
        return Path(unquote(parts.path))
    if "::" in url or parts.query or parts.fragment or not (parts.netloc or parts.path):
        raise ValueError("is not like s3://bucket/prefix")
    if parts.password is not None:
        raise ValueError("has a password in it: put it into LETHE_EXPERTS_OPTIONS")
    found = known_implementations.get(parts.scheme)
    if found is None and parts.scheme not in registry:
        raise ValueError(f"has the scheme {parts.scheme!r}, which fsspec does not know")
    package = found["class"].partition(".")[0] if found is not None else "fsspec"
    if find_spec(package) is None:
        extra = _EXTRAS.get(parts.scheme)
        wanted = f"'lethe[{extra}]' (or: pip install {package})" if extra is not None else package
        raise ValueError(f"is at {parts.scheme}://, which needs a package: pip install {wanted}")
    return None


def load_settings(**overrides: object) -> Settings:
    """Read the settings, `overrides` first, then the environment.

    Raises:
        ConfigurationError: a value is missing or unusable; the message names the variable.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # checked by pydantic, errors below
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            where = "_".join(str(part) for part in problem["loc"]).upper()
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"LETHE_{where}: {message}" if where else message)
        raise ConfigurationError("Cannot start: " + "; ".join(lines)) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, read once."""
    return load_settings()
