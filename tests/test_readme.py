"""The README says what works: its code runs and prints what it says, its commands and goals exist."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_OFFLINE = ("docker", "pip", "apt-get", "git", "curl", "export", "cd")  # commands of blocks that are not run here


def blocks(*kinds: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(TEXT) if kind in kinds]


def lines() -> list[list[str]]:
    """The commands of shell blocks, split into words, without comments and prompts."""
    each = [line.removeprefix("$ ") for block in blocks("sh", "bash", "console") for line in block.splitlines()]
    return [words for line in each if (words := shlex.split(line, comments=True))]


def spans() -> list[list[str]]:
    """What stands between single backquotes in the text, where it is a call of `undertow` or `make`."""
    found = re.findall(r"`((?:undertow|make) [^`\n]+)`", BLOCK.sub("", TEXT))
    return [shlex.split(text) for text in found]


def goals() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def called(name: str) -> list[list[str]]:
    return [words[1:] for words in [*lines(), *spans()] if words[0] == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which the README's Python blocks were run, one after the other, as one who reads on would."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("readme")
    for i, block in enumerate(blocks("python")):
        (folder / f"block{i}.py").write_text(block)
        done = subprocess.run(
            [sys.executable, f"block{i}.py"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        (folder / f"block{i}.txt").write_text(done.stdout)
    return folder


def test_python_blocks_print_what_they_say(folder):
    """Every block runs, and each `print(...)  # result` line prints that result."""
    assert blocks("python")
    for i, block in enumerate(blocks("python")):
        said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        assert said, f"block {i} of the README shows no result"
        assert (folder / f"block{i}.txt").read_text().splitlines() == said


def test_commands_run(folder):
    """`undertow` with a file that the README's code makes runs; any other names a command that there is."""
    script = Path(sys.executable).with_name("undertow")
    assert called("undertow")
    ran = 0
    for words in called("undertow"):
        files = [word for word in words[1:] if "." in word and not word.startswith("-")]
        whole = words[0] == "demo" or (bool(files) and all((folder / file).exists() for file in files))
        arguments = words if whole else [words[0], "--help"]
        done = subprocess.run(
            [script, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"undertow {shlex.join(arguments)}: {done.stderr}"
        ran += whole
    assert ran


def test_goals_exist():
    """`make goal`, wherever the README says it, is a goal of the Makefile, and the Makefile's help lists it."""
    assert called("make")
    for words in called("make"):
        named = {word for word in words if "=" not in word and not word.startswith("-")}
        assert named <= goals(), f"make {shlex.join(words)}: the Makefile has {sorted(goals())}"


def test_every_shell_line_is_one_that_is_checked():
    """A shell block has calls of undertow and make, and of programs that need a network or a shell; nothing unknown."""
    for words in lines():
        assert words[0] in ("undertow", "make", *NOT_OFFLINE), (
            f"'{shlex.join(words)}': say in this test how it is checked"
        )


def test_every_block_is_of_a_kind_that_is_checked():
    """Blocks are code, commands, settings or the map of files; settings parse."""
    for kind, text in BLOCK.findall(TEXT):
        assert kind in ("python", "sh", "bash", "console", "toml", ""), f"```{kind}: say in this test how it is checked"
        assert kind != "toml" or tomllib.loads(text)


def test_the_map_of_files_is_of_folders_that_there_are():
    """Each folder that the README's map names exists, and each folder of the product is in it."""
    (tree,) = [text for text in blocks("") if re.search(r"^engine/", text, re.MULTILINE)]
    named = set(re.findall(r"^(\w+)/", tree, re.MULTILINE))
    assert {"api", "engine", "exporters", "connectors"} <= named
    absent = sorted(name for name in named if not (ROOT / name).is_dir())
    assert not absent, f"the README's map has {absent}, which are not there"
