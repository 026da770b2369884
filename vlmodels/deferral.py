"""Put off the import of a package until something is asked of it that a stand-in cannot give.

While a package is deferred, ``import`` gives an empty module, a ``StandIn``. It answers to those whom a table names,
with what the table names for them. Anything else, asked by anybody, loads the real package into the very same module
objects: whoever holds a stand-in then holds the real module.
"""

from __future__ import annotations

import importlib
import sys
import threading
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Tools look for others in every loaded module, as ``__warningregistry__``; these must not load anything.
_DUNDERS_OF_PACKAGES = ("__all__", "__version__")
ABSENT = object()
_IMPORT_SYSTEM = ("importlib._bootstrap", "_frozen_importlib")  # asks packages in the name of an import statement


class Deferral:
    """Finds stand-ins of a package's modules until one is asked for more, and then the real modules.

    Args:
        package: name of the package.
        modules: the modules that get stand-ins, the package first. The import of another one loads the package.
        served: who asks (a module's name) and for what (a whole name) -> what it gets; None: ``Later``; ``ABSENT``: an
            error, as if there were none.
        as_expected: asked once, when the package is first imported; if False, it is not deferred.
        loaded: called when the package has been loaded after all.
    """

    def __init__(
        self,
        package: str,
        modules: Sequence[str],
        served: Mapping[tuple[str, str], Any],
        *,
        as_expected: Callable[[], bool] = lambda: True,
        loaded: Callable[[], None] = lambda: None,
    ) -> None:
        self._package, self._modules = package, modules
        self._served, self._handed_out = served, dict[tuple[str, str], Later]()
        self._absent = {whole for (_, whole), what in served.items() if what is ABSENT}  # imports ask for modules too
        self._as_expected, self._loaded = as_expected, loaded
        self._stand_ins: dict[str, StandIn] = {}
        self._loading = False
        self._lock = threading.Lock()

    def install(self) -> None:
        """Defer the package from now on; do nothing where it or a part of it is imported already."""
        if not any(self.defers(name) for name in sys.modules):
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, _: ModuleType | None = None) -> ModuleSpec | None:
        """Find a stand-in, or the real module that is to fill one. Part of the import system."""
        if not self.defers(name) or (name in self._absent and not self._loading):
            return None
        if self._loading:
            return self._spec_that_fills(name, path)
        if not self._as_expected():
            self._remove()
            return None
        if name not in self._modules:
            self.load()
            return _spec_of_loaded(name)
        real = PathFinder.find_spec(name, path)
        if real is None or real.origin is None:
            return None
        spec = ModuleSpec(name, self, origin=real.origin)  # type: ignore[arg-type]  # a loader by its two methods
        spec.submodule_search_locations = real.submodule_search_locations
        spec.has_location = True  # ``inspect`` looks at every module's __file__, which must load nothing
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make a stand-in. Part of the import system."""
        self._stand_ins[spec.name] = StandIn(spec.name)
        return self._stand_ins[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Tell a stand-in whose it is. Part of the import system."""
        vars(module)["_deferral"] = self

    def answer(self, asking: str, module: str, name: str) -> Any:
        """Return a module's attribute: a stand-in's, or, after loading the package, the real one.

        Raises:
            AttributeError: the real module has none of this name.
        """
        whole = f"{module}.{name}"
        if whole in self._modules:
            return importlib.import_module(whole)
        if (asking, whole) in self._served:
            served = self._served[asking, whole]
            if served is ABSENT:
                raise AttributeError(f"module '{module}' has no attribute '{name}' for {asking}")
            if served is None:
                served = self._handed_out.setdefault((asking, whole), Later(self, asking, module, name))
            return served
        self.load()
        real = importlib.import_module(module)
        if type(real) is not StandIn:
            return getattr(real, name)
        content = vars(real)
        if name not in content:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        return content[name]

    @property
    def is_loading(self) -> bool:
        """Whether the real package is there, or about to be."""
        return self._loading

    def load(self) -> None:
        """Load the real package. In a thread that does so already, return at once, as circular imports do."""
        with self._lock:  # nothing is imported under it: a module's lock and this one could wait for each other
            first, self._loading = not self._loading, True
            if first:
                for name in self._stand_ins:
                    sys.modules.pop(name, None)
                    parent, _, child = name.rpartition(".")
                    if parent in self._stand_ins:  # else ``from . import child`` would be content with the stand-in
                        vars(self._stand_ins[parent]).pop(child, None)
        try:
            for name in (self._package, *self._stand_ins) if first else (self._package,):
                importlib.import_module(name)
        except BaseException:
            if first:
                self._give_up()
            raise
        if first:
            self._finish()

    def defers(self, name: str) -> bool:
        """Whether a module is the package or in it."""
        return name == self._package or name.startswith(f"{self._package}.")

    def _spec_that_fills(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Return the real module's spec, to be executed in its stand-in; None if it has no stand-in."""
        module = self._stand_ins.get(name)
        spec = PathFinder.find_spec(name, path) if module is not None else None
        if module is None or spec is None or spec.loader is None:
            return None

        def emptied(_: ModuleSpec) -> ModuleType:
            vars(module).clear()
            vars(module)["_deferral"] = self
            return module

        spec.loader.create_module = emptied  # type: ignore[method-assign, assignment]
        return spec

    def _finish(self) -> None:
        self._remove()
        for name, module in self._stand_ins.items():
            if type(module) is StandIn:  # a module may have given itself another class
                module.__class__ = ModuleType  # type: ignore[assignment]
            vars(module).pop("_deferral", None)
            if sys.modules[name] is not module:  # a module may have put another in its place, as transformers does
                vars(module)["__getattr__"] = partial(getattr, sys.modules[name])
            if module.__spec__ is not None:
                vars(module.__spec__.loader).pop("create_module", None)
        for later in self._handed_out.values():
            later.replace()
        self._loaded()

    def _give_up(self) -> None:
        """Let the next import try again, without this."""
        self._remove()
        parent, _, child = self._package.rpartition(".")
        if parent:
            vars(sys.modules[parent]).pop(child, None)

    def _remove(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class StandIn(ModuleType):
    """An empty module that becomes the real one when it is asked for what its ``Deferral`` does not serve."""

    _deferral: Deferral

    def __getattr__(self, name: str) -> Any:
        own = name == "_deferral" or (name.startswith("__") and name not in _DUNDERS_OF_PACKAGES)
        if own:
            raise AttributeError(name)
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to know who asks
        while frame is not None and frame.f_globals.get("__name__") in _IMPORT_SYSTEM:
            frame = frame.f_back
        asking = "" if frame is None else frame.f_globals.get("__name__", "")
        return self._deferral.answer(asking, self.__name__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__") and not isinstance(value, ModuleType):  # the import system sets these
            self._deferral.load()
        ModuleType.__setattr__(self, name, value)  # not super(): by now this may be no StandIn

    def __dir__(self) -> list[str]:
        self._deferral.load()
        return sorted(vars(self))


class Later:
    """A function or class that is loaded when it is used; then, who asked for it gets the real one in its place.

    Args:
        deferral: of the package.
        asking: the module that asked.
        module: the module that has it.
        name: its name there.
    """

    __slots__ = ("_asking", "_deferral", "_module", "_name")

    def __init__(self, deferral: Deferral, asking: str, module: str, name: str) -> None:
        self._deferral = deferral
        self._asking = asking
        self._module = module
        self._name = name

    def real(self) -> Any:
        """Load and return it."""
        self._deferral.load()
        return getattr(importlib.import_module(self._module), self._name)

    def replace(self) -> None:
        """Put the real one where this is among the globals of who asked."""
        names = vars(sys.modules[self._asking]) if self._asking in sys.modules else {}
        for name in [name for name, value in names.items() if value is self]:
            names[name] = self.real()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the real one."""
        return self.real()(*args, **options)

    def __instancecheck__(self, instance: object) -> bool:
        # Of a class that is not loaded there are no instances.
        return self._deferral.is_loading and isinstance(instance, self.real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self.real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self.real(),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real(), name)


def _spec_of_loaded(name: str) -> ModuleSpec | None:
    """Return the spec of a loaded module so that it is not executed again; None if it is not loaded.

    The import of a submodule goes on after ``find_spec``, although that has loaded the package and, with it, perhaps
    the submodule: a second copy of it would take the place of the first.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    loader: Any = getattr(spec, "loader", None)
    if loader is None:
        return None

    def executed(_: ModuleType) -> None:
        del loader.create_module, loader.exec_module

    loader.create_module = lambda _: module
    loader.exec_module = executed
    return spec
