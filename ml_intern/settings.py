"""What a user can set, from the environment. Anything else is an argument."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError


class Settings(BaseSettings):
    """Settings of this user on this machine. Environment variables have the names given in brackets."""

    model_config = SettingsConfigDict(
        env_prefix="ML_INTERN_", populate_by_name=True, extra="ignore", env_ignore_empty=True
    )

    home: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("ml-intern", appauthor=False)))
    """Where sessions, their workspaces and artifacts lie (`ML_INTERN_HOME`)."""

    llm_endpoint: str | None = Field(default=None, validation_alias="LLM_ENDPOINT")
    """The model, as litellm or this project names it (`LLM_ENDPOINT`)."""

    secrets: str = ""
    """Names of further environment variables, and of files with a secret a line, whose values are masked everywhere
    (`ML_INTERN_SECRETS`, separated by commas)."""

    action_seconds: float = 3600.0
    """How long one code action may run, in seconds, not counting calls to tools (`ML_INTERN_ACTION_SECONDS`)."""

    memory_gb: float = 8.0
    """Memory that a jail and its children may use together, in GiB (`ML_INTERN_MEMORY_GB`)."""

    disk_gb: float = 50.0
    """Disk that a session may take, in GiB (`ML_INTERN_DISK_GB`)."""

    gpus: bool = False
    """Whether code in a jail may use this machine's GPUs (`ML_INTERN_GPUS`)."""

    network: Literal["none", "hub", "full"] = "hub"
    """What code in a jail reaches: nothing, the public Hub to read, or any public host (`ML_INTERN_NETWORK`)."""

    allow_hosts: str = ""
    """Further hosts that it reaches, separated by commas (`ML_INTERN_ALLOW_HOSTS`)."""

    research_model: str = ""
    """The model of the researchers, as in `LLM_ENDPOINT`; without one the session's (`ML_INTERN_RESEARCH_MODEL`)."""

    context_window: int | None = Field(default=None, ge=2_000)
    """Tokens that the model can read, prompt and answer, in place of what is known of it (`ML_INTERN_CONTEXT_WINDOW`)."""

    effort: str | None = None
    """How long the model thinks: none, minimal, low, medium or high (`ML_INTERN_EFFORT`)."""

    model_options: str = ""
    """Further parameters of the model: `temperature=0.2, seed=7`, or a JSON object (`ML_INTERN_MODEL_OPTIONS`)."""

    prices: str = ""
    """Prices of models that nobody else knows, in USD for a million tokens in and out: `ollama/m=0.2/0.6`
    (`ML_INTERN_PRICES`)."""

    offline: bool = False
    """Whether nothing is reached but the model's server, which has to be one of the user's own (`ML_INTERN_OFFLINE`)."""

    @classmethod
    def load(cls, home: Path | None = None) -> Settings:
        """Reads the environment.

        Args:
            home (`Path`, *optional*): Takes the place of `ML_INTERN_HOME`.

        Raises:
            SettingsError: a variable has a value that cannot work.
        """
        try:
            settings = cls()
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(
                f"{'.'.join(map(str, first['loc']))} cannot be {first.get('input')!r}",
                first["msg"],
                "Correct or unset it.",
            ) from None
        return settings.model_copy(update={"home": Path(home).expanduser()}) if home is not None else settings

    def sessions(self) -> Path:
        """The folder of sessions, made if need be.

        Raises:
            SettingsError: it cannot be made or written.
        """
        folder = self.home.expanduser().absolute() / "sessions"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise SettingsError(
                f"Cannot write to {folder}",
                error.strerror or str(error),
                "Choose another place: --home DIR or ML_INTERN_HOME=DIR.",
            ) from None
        return folder
