"""A package of three files, deferred: who gets what of it, and what it is once it is loaded."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
import threading
import types

import pytest

from vlmodels.deferral import ABSENT, Deferral, StandIn

FILES = {
    "__init__": "__version__ = '1.0'\n__all__ = ['big', 'helper']\nlog.append(__name__)\n"
    "from PACKAGE import parts, more\nfrom PACKAGE.parts import big\nfrom PACKAGE.more import helper\n",
    "parts": "log.append(__name__)\nclass Big:\n    size = 3\ndef big(): return Big()\n",
    "more": "log.append(__name__)\ndef helper(): return 'real help'\n",
    "late": "log.append(__name__)\nvalue = 3\n",
}
numbers = iter(range(1000))


class Installed:
    """The package's name, its deferral, and the names of its files in the order in which they ran."""

    def __init__(self, name, deferral, log):
        self.name, self.deferral, self.log = name, deferral, log

    def run(self, code, name="somebody"):
        """Run a module's code; PACKAGE stands for the package's name."""
        module = sys.modules[name] = types.ModuleType(name)
        exec(code.replace("PACKAGE", self.name), vars(module))
        return module

    @property
    def loaded(self):
        return self.log != []


@pytest.fixture
def installed(tmp_path, monkeypatch):
    before = dict(sys.modules), list(sys.meta_path)
    monkeypatch.syspath_prepend(tmp_path)

    def install(**changes):
        name = f"deferred_{next(numbers)}"
        (tmp_path / name).mkdir()
        log = []
        monkeypatch.setattr("builtins.log", log, raising=False)
        for file, code in FILES.items():
            (tmp_path / name / f"{file}.py").write_text(changes.get(file, code).replace("PACKAGE", name))
        importlib.invalidate_caches()
        served = {
            ("friend", f"{name}.helper"): lambda: "stand-in",
            ("friend", f"{name}.parts.Big"): None,
            ("friend", f"{name}.big"): ABSENT,
        }
        options = {key: value for key, value in changes.items() if key not in FILES}
        deferral = Deferral(name, (name, f"{name}.parts"), served, **options)
        deferral.install()
        return Installed(name, deferral, log)

    yield install
    sys.meta_path[:] = before[1]
    for name in set(sys.modules) - set(before[0]):
        del sys.modules[name]


@pytest.mark.parametrize(
    "code",
    [
        "import PACKAGE",
        "import PACKAGE.parts",
        "from PACKAGE import parts",
        "import PACKAGE.parts\nPACKAGE.parts.__file__, PACKAGE.__path__, PACKAGE.__spec__",
        "import PACKAGE\nassert not hasattr(PACKAGE, '__warningregistry__')",
        "import PACKAGE\nassert repr(PACKAGE).startswith(\"<module 'PACKAGE' from \")",
    ],
)
def test_an_import_alone_loads_nothing(installed, code):
    package = installed()
    package.run(code)
    inspect.getmodule(test_an_import_alone_loads_nothing)  # looks at all modules
    assert not package.loaded


@pytest.mark.parametrize(
    "code",
    [
        "import PACKAGE\nassert PACKAGE.helper() == 'real help'",
        "from PACKAGE import helper\nassert helper() == 'real help'",
        "from PACKAGE import *\nassert helper() == 'real help'",
        "import PACKAGE as p\nassert p.__version__ == '1.0'",
        "from PACKAGE.parts import big\nbig()",
        "import PACKAGE.more\nassert PACKAGE.more is PACKAGE.__dict__['more']",
        "from PACKAGE import late\nassert late.value == 3",
        "import PACKAGE.late\nassert PACKAGE.late.value == 3",
        "import PACKAGE\nassert 'helper' in dir(PACKAGE)",
        "import PACKAGE\nPACKAGE.helper = 5\nassert PACKAGE.helper == 5 and PACKAGE.big",
        "import PACKAGE\nassert not hasattr(PACKAGE, 'nothing')",
        "import pickle, PACKAGE.parts\nassert pickle.loads(pickle.dumps(PACKAGE.parts.big)) is PACKAGE.big",
    ],
)
def test_whatever_else_is_asked_for_gets_the_real_package(installed, code):
    package = installed()
    first = importlib.import_module(package.name)
    assert type(first) is StandIn
    package.run(code)
    assert sorted(package.log) == sorted(set(package.log)), "no file runs twice"
    assert sys.modules[package.name] is first, "who held the stand-in holds the package"
    assert type(first) is types.ModuleType
    assert package.deferral not in sys.meta_path
    for name in ("", ".parts", ".more"):
        module = sys.modules[package.name + name]
        assert module.__spec__.loader is module.__loader__
        left = {"create_module", "exec_module", "_deferral"}
        assert not left & (vars(module).keys() | vars(module.__loader__).keys())
        assert inspect.getsource(module)


def test_friends_get_stand_ins_until_the_package_is_there(installed):
    package = installed()
    friend = package.run("import PACKAGE\nfrom PACKAGE.parts import Big as Mine\nimport PACKAGE.parts", "friend")
    ask = "result = PACKAGE.helper()"
    exec(ask.replace("PACKAGE", package.name), vars(friend))
    assert friend.result == "stand-in"
    assert not package.loaded
    package.run("import PACKAGE\nPACKAGE.big")
    exec(ask.replace("PACKAGE", package.name), vars(friend))
    assert friend.result == "real help"
    assert friend.Mine is sys.modules[f"{package.name}.parts"].Big, "the real class is in its place"


def test_a_friend_who_is_to_do_without_a_name_is_told_that_there_is_none(installed):
    package = installed()
    code = "try:\n    from PACKAGE import big\nexcept ImportError:\n    big = None"
    assert package.run(code, "friend").big is None
    assert not package.loaded
    assert package.run("from PACKAGE import big").big().size == 3


def test_a_package_that_puts_another_module_in_its_place_is_found_by_who_held_the_stand_in(installed):
    lazy = (
        "import sys, types\nlog.append(__name__)\n"
        "class Lazy(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        if name != 'big': raise AttributeError(name)\n"
        "        from PACKAGE.parts import big\n"
        "        return big\n"
        "lazy = Lazy(__name__)\nlazy.__path__, lazy.__spec__ = __path__, __spec__\nsys.modules[__name__] = lazy\n"
    )
    package = installed(__init__=lazy)
    friend = package.run("import PACKAGE as mine\nfrom PACKAGE.parts import Big as Mine", "friend")
    assert type(friend.mine) is StandIn
    assert not package.loaded
    other = package.run("from PACKAGE import big\nimport PACKAGE as whole")
    assert friend.mine.big is other.big is other.whole.big
    assert friend.Mine is sys.modules[f"{package.name}.parts"].Big
    assert not hasattr(friend.mine, "nothing")
    assert sorted(package.log) == sorted(set(package.log)), "no file runs twice"


@pytest.mark.parametrize(
    "use",
    [
        "assert type(Mine()).__name__ == 'Big'",
        "assert not issubclass(int, Mine)",
        "class Own(Mine): pass\nassert Own.__mro__[1].__name__ == 'Big'",
        "assert Mine.size == 3",
    ],
)
def test_a_class_that_is_served_late_can_be_used_as_one(installed, use):
    package = installed()
    package.run("from PACKAGE.parts import Big as Mine\nassert log == []\n" + use + "\nassert log != []", "friend")


def test_nothing_is_an_instance_of_a_class_that_is_not_loaded(installed):
    package = installed()
    friend = package.run("from PACKAGE.parts import Big as Mine\nassert not isinstance(3, (str, Mine))", "friend")
    assert not package.loaded
    mine = friend.Mine
    assert isinstance(importlib.import_module(f"{package.name}.parts").big(), mine)
    assert not isinstance(3, mine)


def test_threads_load_it_once(installed):
    package = installed(parts="import time\ntime.sleep(0.05)\n" + FILES["parts"])
    module = importlib.import_module(package.name)
    found = []
    askers = ["PACKAGE.helper", "PACKAGE.parts.big", "PACKAGE.more.helper"] * 4
    threads = [threading.Thread(target=lambda a=a: found.append(eval(a, {"PACKAGE": module}))) for a in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == len(askers)
    assert sorted(package.log) == sorted(set(package.log))


def test_an_import_that_fails_fails_each_time_and_may_succeed_later(installed, tmp_path):
    package = installed(more="raise RuntimeError('broken')")
    module = importlib.import_module(package.name)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            module.helper  # noqa: B018 - the access is the test
    (tmp_path / package.name / "more.py").write_text(FILES["more"] + "\n# mended\n")
    importlib.invalidate_caches()
    assert importlib.import_module(package.name).helper() == "real help"


def test_a_package_that_is_there_or_unexpected_is_left_alone(installed):
    package = installed(as_expected=lambda: False)
    assert importlib.import_module(package.name).helper() == "real help"
    assert package.deferral not in sys.meta_path
    Deferral(package.name, (package.name,), {}).install()
    assert not [finder for finder in sys.meta_path if isinstance(finder, Deferral) and finder.defers(package.name)]


def test_the_caller_is_told_when_it_is_loaded(installed):
    told = []
    package = installed(loaded=lambda: told.append(1))
    module = importlib.import_module(package.name)
    assert not told
    assert pickle.dumps(module.big)
    assert told == [1]
