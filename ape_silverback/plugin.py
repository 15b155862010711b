"""The section as Ape knows it: ``project.config.silverback``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ape.api import PluginConfig
from pydantic_settings import SettingsConfigDict

from ape_silverback.config.models import Section
from ape_silverback.config.overlays import VARIABLE_PREFIX
from ape_silverback.config.reader import check_section


class SilverbackConfig(PluginConfig, Section):
    """The fields of ``Section``, read by Ape.

    By default, values of Ape's files win over those of the environment; here the environment wins.
    """

    model_config = SettingsConfigDict(extra="forbid", env_prefix=VARIABLE_PREFIX)

    @classmethod
    def from_overrides(
        cls,
        overrides: Any,
        plugin_name: str | None = None,  # noqa: ARG003 - Ape's signature
        project_path: Path | None = None,
    ) -> SilverbackConfig:
        """Return the section that Ape read.

        Args:
            overrides: what stands under the section's key; None for a key without a value.
            plugin_name: unused: the section has one name.
            project_path: the project's folder, to find its bots and where keys were written.

        Raises:
            ConfigurationError: a key or a value isn't right.
        """
        section = check_section(overrides, project_path)
        values = {name: getattr(section, name) for name in Section.model_fields}
        return cls.model_construct(_fields_set=section.model_fields_set, **values)
