"""The container engine of this machine: it builds and pushes images, and knows their digests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ape_silverback.exceptions import BuildError
from ape_silverback.images.recipe import CHECKED, Recipe

ENGINES = ("podman", "docker")
ENGINE_VARIABLE = "SILVERBACK_CONTAINER_ENGINE"

PATIENCE = 10.0
"""Seconds that an engine gets to answer a query."""

COLOUR = re.compile(r"\x1b\[[\d;]*m")
"""What Docker puts around what a step wrote to stderr."""

TOLD = re.compile(rf"\s*(?:#\d+ )?(?:\d+\.\d+ )?{CHECKED} *(.*\S)")
"""What a base image was found to lack. BuildKit puts the step and the seconds before it; the command itself, which
engines show too, only contains it."""

Output = Generator[str, None, "str | None"]
"""Lines of an engine while it works, and then the digest of the image."""


@dataclass(frozen=True)
class Engine:
    """A container engine of this machine.

    Attributes:
        name: ``podman`` or ``docker``.
        program: path of its command.
    """

    name: str
    program: str

    @classmethod
    def find(cls, name: str | None = None, environ: Mapping[str, str] | None = None) -> Engine:
        """Find the engine that is named, else that of ``SILVERBACK_CONTAINER_ENGINE``, else the first that is there.

        Args:
            name: one of ``ENGINES``.
            environ: the process's environment (default: the real one).

        Raises:
            BuildError: it isn't on PATH, or isn't one of ``ENGINES``.
        """
        environ = os.environ if environ is None else environ
        origin = "--engine" if name else ENGINE_VARIABLE
        name = name or environ.get(ENGINE_VARIABLE)
        if name and name not in ENGINES:
            raise BuildError(f"{origin}: unknown container engine '{name}'; use {' or '.join(ENGINES)}")
        for candidate in [name] if name else ENGINES:
            if program := shutil.which(candidate, path=environ.get("PATH")):
                return cls(candidate, program)
        looked_for = f"{name} ({origin})" if name else " or ".join(ENGINES)
        raise BuildError(f"no container engine: {looked_for} isn't on PATH")

    def build(self, project: Path, recipe: Recipe, image: str, platform: str | None = None) -> Output:
        """Build an image; yield the engine's lines, and return its digest as ``digest`` does.

        Args:
            project: the project's folder.
            recipe: how the image is made.
            image: the reference that it gets.
            platform: operating system and architecture, as ``linux/amd64``; None for those of the engine.

        Raises:
            BuildError: the engine failed.
        """
        with recipe.context(project) as context, tempfile.TemporaryDirectory(prefix="silverback-image-") as folder:
            file = Path(folder, "Containerfile")
            file.write_text(recipe.text, encoding="utf8")
            where = ["--platform", platform] if platform else []
            yield from self._run("build", *where, "--file", str(file), "--tag", image, str(context))
        return self.digest(image)

    def push(self, image: str) -> Output:
        """Push an image to its registry; yield the engine's lines, and return the registry's digest.

        Raises:
            BuildError: the engine failed.
        """
        if self.name == "docker":
            yield from self._run("push", image)
            return self.digest(image)
        # Podman compresses while it pushes, and doesn't keep the resulting digest.
        with tempfile.TemporaryDirectory(prefix="silverback-image-") as folder:
            file = Path(folder, "digest")
            yield from self._run("push", "--digestfile", str(file), image)
            return file.read_text(encoding="utf8").strip() or None

    def digest(self, image: str) -> str | None:
        """Return the digest of an image that the engine has, as ``sha256:…``; None when it doesn't know it.

        It is the registry's for an image that was pulled, or pushed by Docker. Else it is the engine's own, which no
        registry knows.
        """
        command = [self.program, "image", "inspect", image]
        try:
            result = subprocess.run(
                command, capture_output=True, timeout=PATIENCE, check=True, stdin=subprocess.DEVNULL
            )
            [found] = json.loads(result.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
        repository = re.sub(r"(:[^:/]+)?(@[^@]+)?$", "", image)
        for known in found.get("RepoDigests") or ():
            name, _, digest = known.partition("@")
            if name == repository or name.endswith(f"/{repository}"):
                return str(digest)
        return f"sha256:{found['Id'].removeprefix('sha256:')}"

    def having(self, images: Collection[str]) -> set[str]:
        """Return which of some images the engine has, with one query; none when it fails."""
        command = [self.program, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
        try:
            result = subprocess.run(
                command, capture_output=True, timeout=PATIENCE, check=True, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.SubprocessError):
            return set()
        there = result.stdout.decode(errors="replace").splitlines()
        # Podman writes the registry before names that have none, and a reference without a tag means `latest`.
        ends = {name[at:] for name in there for at in [0, *(match.end() for match in re.finditer("/", name))]}
        return {image for image in images if (image if re.search(r":[^/]+$", image) else f"{image}:latest") in ends}

    def _run(self, *arguments: str) -> Iterator[str]:
        """Run the engine and yield its lines. It is ended when no more of them are taken."""
        last = found = ""
        try:
            process = subprocess.Popen(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf8",
                errors="replace",
            )
        except OSError as error:
            raise BuildError(f"{self.program}: can't be run: {error.strerror}") from error
        with process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            try:
                for painted in process.stdout:
                    line = COLOUR.sub("", painted)
                    last = line.strip() or last
                    found = found or (told[1] if (told := TOLD.match(line)) else "")
                    yield line.rstrip()
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            said = f": {found or last}" if found or last else ""
            raise BuildError(f"`{self.name} {arguments[0]}` failed with exit code {process.returncode}{said}")


def image_digests(images: Iterable[str]) -> dict[str, str]:
    """Return the digests of images that are known without a registry: from the reference, or from an engine here.

    What isn't known is left out, and so is ``project:…``, which is a folder.
    """
    wanted = {image for image in images if not image.startswith("project:")}
    digests = {image: image.partition("@")[2] for image in wanted if "@" in image}
    if unknown := wanted.difference(digests):
        with suppress(BuildError):
            engine = Engine.find()
            found = ((image, engine.digest(image)) for image in unknown & engine.having(unknown))
            digests |= {image: digest for image, digest in found if digest}
    return digests
