"""Which version of a registered model an alias stands for, and what happens when it moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from pipelines.serving.messages import ModelFacts

POLL_S = 10.0
"""Seconds between two looks at the registry."""


def current_version(source: str) -> str:
    """Return the version that ``models:/NAME@ALIAS`` stands for now, or that ``models:/NAME/3`` names; "" for a folder.

    The registry is the one that MLFLOW_TRACKING_URI names.

    Raises:
        UserError: there is no such alias, or the registry does not answer.
    """
    from vlmodels.errors import UserError
    from vlmodels.local_registry import local_version

    if not source.startswith("models:/"):
        return ""
    name, at, alias = source.removeprefix("models:/").partition("@")
    if not at:
        return name.rpartition("/")[2]
    found = local_version(source)
    if found is not None:
        return found
    from mlflow import MlflowClient  # late: its import takes seconds
    from mlflow.exceptions import MlflowException

    try:
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        raise UserError(f"{source}: {str(error).splitlines()[0]}; set --mlflow to where it was registered") from error


class Versions:
    """The version that answers, and those whose last requests are under way.

    Args:
        source: the model, as the user named it.
        facts: of the version that answers first.
        prepare: loads a version beside the others, warms it up, and returns its facts.
        keep: drops all versions but one.
        find: returns the version that ``source`` stands for; it may block.
        say: gets a line for each take-over, and for each that fails.
    """

    def __init__(
        self,
        source: str,
        facts: ModelFacts,
        prepare: Callable[[str], Awaitable[ModelFacts]],
        keep: Callable[[str], Awaitable[None]],
        *,
        find: Callable[[str], str] = current_version,
        say: Callable[[str], None] = print,
    ) -> None:
        self.source, self.current = source, facts
        self._prepare, self._keep, self._find, self._say = prepare, keep, find, say
        self._running: dict[str, int] = {}
        self._left = asyncio.Event()
        self._said = ""

    @contextlib.contextmanager
    def use(self) -> Iterator[ModelFacts]:
        """Yield the version that answers; it stays until the block ends, even if another takes over."""
        facts = self.current
        self._running[facts.version] = self._running.get(facts.version, 0) + 1
        try:
            yield facts
        finally:
            self._running[facts.version] -= 1
            self._left.set()

    async def watch(self, every: float = POLL_S) -> None:
        """Take over what the alias is moved to, for ever; a version that cannot be loaded is told once."""
        while "@" in self.source:
            await asyncio.sleep(every)
            await self.look()

    async def look(self) -> None:
        """Take over a version that the alias has been moved to."""
        try:
            version = await asyncio.to_thread(self._find, self.source)
            if version == self.current.version:
                return
            facts = await self._prepare(version)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old version goes on
            self._tell(f"{self.source}: version {self.current.version} goes on, {' '.join(str(error).split())[:300]}")
            return
        old, self.current = self.current.version, facts
        self._tell(f"{self.source}: version {version} has taken over from version {old}")
        while self._running.get(old):
            self._left.clear()
            await self._left.wait()
        try:
            await self._keep(version)
        except Exception as error:  # noqa: BLE001 - it costs memory; the alias is watched further
            self._tell(f"{self.source}: version {old} stays loaded, {' '.join(str(error).split())[:300]}")

    def _tell(self, line: str) -> None:
        if line != self._said:
            self._say(line)
            self._said = line
