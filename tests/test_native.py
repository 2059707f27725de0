"""Our own C++ is built once, whole or not at all, and nothing depends on it."""

import ctypes
import platform
import subprocess
from pathlib import Path

import pytest

from spiritsafe import native as module
from spiritsafe.native import NativeWarning, native

SOURCES = sorted(Path(module.__file__).parent.rglob("*.cpp"))
TWICE = 'extern "C" int twice(int x) { return 2 * x; }'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPIRITSAFE_NATIVE", raising=False)
    native.cache_clear()


def built(tmp_path: Path, text: str = TWICE) -> ctypes.CDLL | None:
    source = tmp_path / "twice.cpp"
    source.write_text(text)
    return native(source)


def test_a_file_is_compiled_and_called(tmp_path: Path) -> None:
    library = built(tmp_path)
    assert library is not None
    assert library.twice(21) == 42


def test_a_changed_file_is_compiled_again(tmp_path: Path) -> None:
    built(tmp_path)
    native.cache_clear()
    library = built(tmp_path, TWICE.replace("2", "3"))
    assert library is not None
    assert library.twice(1) == 3
    assert len(list((tmp_path / "cache" / "native").glob("*.so"))) == 2


def test_a_built_file_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(tmp_path)
    native.cache_clear()
    monkeypatch.setattr(module, "_compile", lambda *a: pytest.fail("compiled again"))
    assert built(tmp_path) is not None


def test_a_planted_library_is_built_again_and_never_loaded(tmp_path: Path) -> None:
    built(tmp_path)
    native.cache_clear()
    (path,) = (tmp_path / "cache" / "native").glob("*.so")
    planted = tmp_path / "planted.cpp"
    planted.write_text(f'#include <cstdio>\n__attribute__((constructor)) void f() {{ fopen("{tmp_path}/RAN", "w"); }}')
    subprocess.run(["g++", "-shared", "-fPIC", str(planted), "-o", str(path)], check=True)
    library = built(tmp_path)
    assert library is not None
    assert library.twice(21) == 42
    assert not (tmp_path / "RAN").exists()


def test_a_broken_file_warns_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.warns(NativeWarning, match=r"twice\.cpp did not compile.*error"):
        assert built(tmp_path, "int twice(") is None
    assert list((tmp_path / "cache" / "native").iterdir()) == []


def test_without_a_compiler_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(NativeWarning, match="install g"):
        assert built(tmp_path) is None


def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_NATIVE", "0")
    assert built(tmp_path) is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of the kind x86-64")
@pytest.mark.parametrize(
    "processor",
    ["x86-64-v3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("x86-64-v4", "sapphirerapids"))],
)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_vector_is_wider_than_the_registers(source: Path, processor: str) -> None:
    command = ["g++", *module.FLAGS, "-O0", f"-march={processor}", "-Werror=psabi", "-S", "-o", "/dev/null"]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
