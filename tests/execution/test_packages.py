"""Packages for a session: what is taken, what is refused, what code sees of it. The index is a folder of wheels."""

from __future__ import annotations

import base64
import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from pip._internal.models.index import PyPI
from smolagents import ChatMessage
from smolagents.local_python_executor import InterpreterError

from ml_intern import MLIntern
from ml_intern.execution import JailExecutor, WorkerLost
from ml_intern.execution.jail import Jail, find_jail
from ml_intern.execution.packages import PackageError, Packages, requirement
from ml_intern.execution.pip_jail import PipConfig
from ml_intern.execution.worker import pip_call
from ml_intern.testing import ScriptedModel


def build_wheel(
    folder: Path, name: str, version: str, code: str, *, needs: str = "", tag: str = "py3-none-any", inside: str = ""
) -> None:
    """A wheel of one module, made by hand: what pip checks of it is right, and no build tool is needed."""
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *([f"Requires-Dist: {needs}"] if needs else []),
    ]
    contents = {
        f"{inside}{name}.py": code,
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = ""
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        for path, text in contents.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # pip runs as a throw-away user where the host is root
    build_wheel(folder, "tiny_one", "1.0", "value = 1\n")
    build_wheel(folder, "tiny_one", "2.0", "value = 2\n")
    build_wheel(folder, "tiny_two", "1.0", "import tiny_one\nvalue = tiny_one.value + 10\n", needs="tiny_one<2")
    build_wheel(folder, "tiny_old", "1.0", "", tag="cp27-none-any")
    build_wheel(folder, "tiny_clash", "1.0", "", needs="pytest<2")
    build_wheel(folder, "tiny_north", "1.0", "value = 'n'\n", inside="tiny_space/")
    build_wheel(folder, "tiny_south", "1.0", "value = 's'\n", inside="tiny_space/")
    (folder / "tiny_source-1.0.tar.gz").write_bytes(b"not even looked at")
    return folder


@pytest.fixture
def pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured as a person would do it. Nothing else of this machine's configuration counts."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture
def build(make: Callable[..., JailExecutor], pip: None, tmp_path: Path) -> Callable[..., JailExecutor]:
    """An executor with the tool, as a session has it."""
    tmp_path.chmod(0o755)

    def build(jail: Jail | None = None, layer: str = "layer") -> JailExecutor:
        executor = make(packages=tmp_path / layer, **({"jail": jail} if jail else {}))
        packages = Packages(tmp_path / layer, tmp_path / "cache", executor._jail, lambda: executor.cancelled.is_set())

        def install_packages(packages_: list[str]) -> list[str]:
            return list(packages.install(packages_).new)

        executor.send_tools({"install_packages": install_packages})
        return executor

    return build


@pytest.mark.long
def test_installed_while_running_and_importable_at_once(build, jail: Jail) -> None:
    executor = build(jail)
    assert (
        executor("try:\n    import tiny_one\nexcept ImportError as e: missing = True\nkept = [1]\nmissing").output
        is True
    )
    assert executor("sorted(install_packages(['tiny-two']))").output == ["tiny-one 1.0", "tiny-two 1.0"]
    assert executor("import tiny_two\ntiny_two.value, kept").output == (11, [1])
    assert executor("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import tiny_two; print(tiny_two.value)'],"
                    " capture_output=True, text=True).stdout").output == "11\n"  # fmt: skip
    assert executor("import pathlib\nstr(pathlib.Path(tiny_two.__file__).parent) != '/workspace'").output is True


@pytest.mark.long
def test_code_can_read_but_not_write_the_layer(build, jail: Jail) -> None:
    executor = build(jail)
    executor("install_packages(['tiny_one'])\nimport tiny_one, os")
    for attempt in (
        "open(tiny_one.__file__, 'a')",
        "open(os.path.join(os.path.dirname(tiny_one.__file__), 'x.py'), 'w')",
        "os.unlink(tiny_one.__file__)",
        "os.rename(tiny_one.__file__, 'x.py')",
    ):
        with pytest.raises(InterpreterError, match=r"PermissionError|Read-only|cross-device"):
            executor(attempt)


@pytest.mark.long
def test_it_is_there_for_the_next_worker_and_the_next_host(build) -> None:
    executor = build()
    executor("!pip install tiny_one")
    executor("import tiny_one")
    time.sleep(0.5)
    with pytest.raises(WorkerLost):
        executor("import os\nos._exit(1)")
    assert executor("tiny_one.value").output == 2
    executor.cleanup()
    assert build()("import tiny_one\ntiny_one.value").output == 2
    assert (
        build(layer="another")("'tiny_one' in {m.name for m in __import__('pkgutil').iter_modules()}").output is False
    )


LINES = {
    "!pip install tiny_one": "install_packages(['tiny_one'])",
    "    %pip install -q tiny_one==1.0": "    install_packages(['tiny_one==1.0'])",
    "!uv pip install 'tiny_one>=1' b": "install_packages(['tiny_one>=1', 'b'])",
    "!python -m pip install -U tiny_one": "install_packages(['tiny_one'])",
    "!pip install tiny_one # that one": "install_packages(['tiny_one'])",
    "!pip install -r requirements.txt": "install_packages(['-r', 'requirements.txt'])",  # which says no to it
    "!pip install a && rm -rf /": "install_packages(['a', '&&', 'rm', '-rf', '/'])",
    "!ls": "",
    "!pip list": "",
    "!apt install x": "",
    "!pip install 'x": "",
    "pip install x": "",
    "x % pip install": "",
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_notebooks_pip_as_a_call(line: str) -> None:
    assert pip_call(line) == LINES[line]


@pytest.mark.long
def test_a_notebooks_pip(build) -> None:
    executor = build()
    assert executor("x = 1\nif x:\n    !pip install tiny_one==1.0\nimport tiny_one\ntiny_one.value").output == 1
    assert executor("%pip install tiny_one pytest").output == []
    for line in ("!pip install -r requirements.txt", "!pip install --index-url http://evil tiny_one"):
        with pytest.raises(InterpreterError, match=f"line '{line}' due to.*it is an option of pip"):
            executor(f"x = 1\n{line}")
    with pytest.raises(InterpreterError, match="line 2 due to: SyntaxError"):
        executor("x = 1\n!ls")


@pytest.mark.long
def test_packages_may_share_a_folder(build) -> None:
    executor = build()
    executor("!pip install tiny_north")
    executor("!pip install tiny_south")
    code = "import tiny_space.tiny_north, tiny_space.tiny_south\ntiny_space.tiny_north.value + tiny_space.tiny_south.value"
    assert executor(code).output == "ns"


@pytest.mark.long
def test_whatever_the_umask(build, jail: Jail) -> None:
    before = os.umask(0o077)
    try:
        executor = build(jail)
        assert executor("!pip install tiny_one==1.0\nimport tiny_one\ntiny_one.value").output == 1
        lasting = executor("kept = 1\nkept")
    finally:
        os.umask(before)
    assert lasting.output == 1


def test_text_that_looks_like_it_stays_text(build) -> None:
    executor = build()
    assert (
        executor("text = '''\n!pip install tiny_one\n%pip install x\n'''\ntext").output
        == "\n!pip install tiny_one\n%pip install x\n"
    )
    assert executor("import importlib.util\nimportlib.util.find_spec('tiny_one') is None").output is True


def test_without_the_tool_it_is_a_syntax_error(make) -> None:
    with pytest.raises(InterpreterError, match="SyntaxError"):
        make()("!pip install tiny_one")


REFUSED = [
    ".", "./dir", "../dir", "/etc", "dir/", "~/x", "C:\\x", "x.whl", "x-1.0.tar.gz", "x.zip", "file:///x", "https://h/x.whl", "git+https://h/x",
    "x @ file:///x", "x@https://h/x", "-e .", "-r requirements.txt", "--index-url=http://h", "-", "", " ", "${HOME}", "$HOME", "x; os_name=='nt'",
    "x y", "x --pre", "x\n--index-url http://h", "x==1 # y", "x==1;y", "x[./y]", "é", "x\0", "x==", "x==../y", "'x'", '"x"', "x" * 10 + " @", "@x",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_only_names_and_versions(text: str) -> None:
    with pytest.raises(PackageError) as caught:
        requirement(text)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    "text",
    ["polars", "x==1.2", "x>=1,<2", "x[a,b]~=1.0", "Zope.Interface", "a_b-c==1.0+cpu", " x ", "x (>=1)", "x != 1.*"],
)
def test_what_is_a_name(text: str) -> None:
    assert (
        requirement(text).name
        == text.strip().split("=")[0].split(">")[0].split("[")[0].split("(")[0].split("!")[0].strip()
    )


def test_a_folder_is_never_built(build, tmp_path: Path) -> None:
    executor = build()
    executor(
        "import os\nos.makedirs('tiny_dir')\nopen('tiny_dir/setup.py', 'w').write('open(\"/workspace/ran\", \"w\")')"
    )
    for text in ("./tiny_dir", "tiny_dir", "/workspace/tiny_dir", "tiny_dir/"):
        with pytest.raises(InterpreterError, match=r"not the name of a package|no package tiny[-_]dir"):
            executor(f"install_packages([{text!r}])")
    assert executor("os.path.exists('ran')").output is False


FAILS = {
    "no_such_tiny_package": "the index has no package no_such_tiny_package",
    "tiny_source": "has no wheel for Python",
    "tiny_old": "has no wheel for Python",
    "tiny_one==3": r"there is no tiny_one==3 for Python .*; the latest are 1\.0, 2\.0",
    "tiny_clash": "it does not go with what is in use here",
    "pytest<2": "is in use here, and another one cannot be put in its place",
}


@pytest.mark.long
@pytest.mark.parametrize("name", FAILS)
def test_failures_in_two_lines(pip: None, tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o755)
    packages = Packages(tmp_path / "layer", tmp_path / "cache", find_jail)
    with pytest.raises(PackageError, match=FAILS[name]) as caught:
        packages.install([name])
    assert len(str(caught.value).splitlines()) <= 2
    assert len(str(caught.value)) < 700
    assert not (tmp_path / "layer").exists() or not any((tmp_path / "layer").iterdir())


@pytest.mark.long
def test_what_is_there_is_left_alone(pip: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = sorted(metadata.packages_distributions())
    packages = Packages(tmp_path / "layer", tmp_path / "cache", find_jail)
    version = metadata.version("pytest")
    done = packages.install(["pytest", "tiny_one==1.0"])
    assert (done.new, done.there) == (("tiny-one 1.0",), (f"pytest {version}",))
    assert sorted(path.name for path in (tmp_path / "layer").iterdir() if not path.name.startswith("__")) == [
        "tiny_one-1.0.dist-info",
        "tiny_one.py",
    ]
    assert packages.install(["tiny_one"]).there == ("tiny_one 1.0",)
    with pytest.raises(PackageError, match=r"version 1\.0 of it is in use here"):
        packages.install(["tiny_one==2.0"])
    assert sorted(metadata.packages_distributions()) == before


@pytest.mark.long
def test_pip_is_configured_as_on_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://user:word@index.example/simple\nextra-index-url =\n  http://other.example:8080/x\n"
                    f"  file://{wheels}\ntimeout = 7\nuser = true\n[install]\nfind-links = https://{PyPI.netloc}/some\n")  # fmt: skip
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_PRE", "1")
    config = PipConfig.of_host()
    assert PyPI.netloc != PyPI.file_storage_domain
    assert config.hosts() == ["index.example", "other.example:8080", PyPI.netloc, PyPI.file_storage_domain]
    assert wheels in config.local()
    assert "pre = 1" in config.text() and "user = true" not in config.text()
    monkeypatch.setenv("PIP_NO_INDEX", "true")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    assert (PipConfig.of_host().hosts(), wheels in PipConfig.of_host().local()) == ([], True)


@pytest.mark.long
def test_an_index_that_is_not_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jail: Jail) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:pass-word@127.0.0.1:9/simple")
    with pytest.raises(PackageError, match=r"cannot (be )?reach(ed)?|does not answer") as caught:
        Packages(tmp_path / "layer", tmp_path / "cache", lambda: jail).install(["tiny_one"])
    assert "pass-word" not in str(caught.value)


@pytest.mark.long
def test_pip_ends_with_the_action(pip: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    packages = Packages(tmp_path / "layer", tmp_path / "cache", find_jail, lambda: True)
    with pytest.raises(PackageError, match="the action that asked for it has ended"):
        packages.install(["tiny_one"])


def test_in_a_session(pip: None, tmp_path: Path) -> None:
    """A turn that installs, loses its process and goes on; nobody has to be asked."""
    tmp_path.chmod(0o755)
    seen: list[str] = []

    def then(text: str) -> Callable[[list[ChatMessage]], str]:
        def answer(messages: list[ChatMessage]) -> str:
            seen.append(str(messages[-1].content))
            time.sleep(0.5)  # a model takes its time, and variables are saved meanwhile
            return f"Go on.\n<code>\n{text}\n</code>"

        return answer

    script = [
        then("!pip install tiny_one==1.0\nimport tiny_one\nkept = [tiny_one.value]\nopened = open('x', 'w')"),
        then("import os\nos._exit(1)"),
        then("final_answer(kept + [tiny_one.value, install_packages(['tiny_one'])])"),
    ]
    with MLIntern(ScriptedModel(script), home=tmp_path, tools=[]) as intern:
        assert intern.run("Go.") == [1, 1, {"installed": [], "already_there": ["tiny_one 1.0"]}]
        folder = intern.session().workspace.parent
        assert sorted(path.name for path in folder.iterdir()) == ["holder", "packages", "snapshots", "workspace"]
        assert (tmp_path / "cache" / "pip").is_dir()
    assert "variables come back as the last completed action left them, except: opened (open file)" in seen[2]
