"""Libraries without those of their parts that nothing here uses, which cost each process memory and time."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package whose own module is executed when something of it is asked for that is not a submodule."""

    def __getattr__(self, name: str) -> Any:
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        with _executing:
            if type(self) is _Package:
                # Before the module is executed, which asks for names that it does not have yet.
                self.__class__ = ModuleType  # type: ignore[assignment]
                try:
                    assert self.__spec__ is not None and self.__spec__.loader is not None
                    self.__spec__.loader.exec_module(self)
                except BaseException:
                    self.__class__ = _Package
                    raise
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


_executing = threading.RLock()


def lazy_package(name: str) -> None:
    """Import nothing of a package but the submodules asked for, until a name of the package itself is used.

    The package of ``crds`` imports its tools for those who maintain references: 15 to 20 MB and 0.4 s that reading a
    context does not need. Nothing happens if the package has been imported, or is not installed.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Package
    sys.modules[name] = module


class _Later:
    """Stands for a function or class of a module that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(self.module), self.name)(*args, **kwargs)

    def __instancecheck__(self, instance: Any) -> bool:
        # Nothing is of a class that has not been imported.
        module = sys.modules.get(self.module)
        return module is not None and isinstance(instance, getattr(module, self.name))


class _Postponed(ModuleType):
    """Stands for a module while one thread imports some names of it; whoever wants more gets the module itself."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name)
        self.names, self.thread = names, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name in self.names and threading.get_ident() == self.thread:
            return _Later(self.__name__, name)
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)

    def leave(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


@contextlib.contextmanager
def postponed(module: str, *names: str) -> Iterator[None]:
    """Within it, what imports functions or classes of a module gets some that import it when they are called.

    crds imports ``astropy.time`` only to know its times when it meets them, and ``scipy.interpolate`` imports
    ``scipy.optimize`` for one of its functions: 2 and 9 MB. Nothing happens if the module has been imported.
    """
    if module in sys.modules:
        yield
        return
    # The packages it is in are imported as ever.
    importlib.import_module(module.rpartition(".")[0])
    stand_in = sys.modules.setdefault(module, _Postponed(module, names))
    try:
        yield
    finally:
        if isinstance(stand_in, _Postponed):
            stand_in.leave()


@functools.cache
def numba_without_blas() -> None:
    """Have numba find out whether scipy has a BLAS when a kernel needs one, not when it loads the first kernel.

    To see that it is there, it imports ``scipy.linalg``: 12 MB and 0.3 s.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    from numba.np import linalg

    ensure_blas = getattr(linalg, "ensure_blas", None)
    if ensure_blas is None:
        return
    linalg.ensure_blas = lambda: None
    try:
        from numba.np import arraymath
    finally:
        linalg.ensure_blas = ensure_blas
    arraymath.ensure_blas = ensure_blas


@functools.cache
def numba_without_parsed_kernels() -> None:
    """Have numba parse the intermediate code of a loaded kernel when another one is compiled that calls it.

    It parses that of every kernel it loads and keeps it, ten times the size of the code: 19 MB for those of Stage 1.
    Nothing happens if numba does not know of such code any more.
    """
    from llvmlite import binding
    from numba.core import codegen

    library: Any = codegen.JITCodeLibrary
    try:
        load, link = library._unserialize.__func__, library._get_module_for_linking
        known = all("_shared_module" in part.__code__.co_names for part in (load, link))
    except AttributeError:
        known = False
    if not known:
        return

    def unserialize(cls: Any, target: Any, state: tuple[str, str, Any]) -> Any:
        loaded = load(cls, target, state)
        if state[1] == "object":
            loaded._shared_module, loaded._shared_bitcode = None, state[2][1]
        return loaded

    def module_for_linking(self: Any) -> Any:
        bitcode = self.__dict__.pop("_shared_bitcode", None)
        if bitcode is not None:
            self._shared_module = binding.parse_bitcode(bitcode)
        return link(self)

    library._unserialize = classmethod(unserialize)
    library._get_module_for_linking = module_for_linking
