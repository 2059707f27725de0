"""The gateway as people use it: started from a shell, asked by curl and by the official client, watched after."""

import json
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from spiritsafe.record import Exchange, Message, Sampling, Usage, append_jsonl, read_jsonl
from tests.e2e.workspace import Workspace, ended, interrupt, wait_for

MALT: ChatCompletionUserMessageParam = {"role": "user", "content": "malt"}
BODY = {"model": "fake:echo", "messages": [{"role": "user", "content": "peat and smoke"}]}


@dataclass(frozen=True)
class Running:
    """A gateway that runs, and a key of the account `alice`."""

    url: str
    key: str
    home: Path
    process: "subprocess.Popen[str]"

    def log(self) -> list[Exchange]:
        """What it logged so far."""
        return read_jsonl(self.home / "exchanges.jsonl", Exchange)


@pytest.fixture(scope="module")
def gateway(workspace: Workspace) -> Iterator[Running]:
    """`spiritsafe serve fake:echo` on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
    key = workspace.call("serve", "fake:echo", "--home", "cellar", "--new-key", "alice").out.strip()
    process = workspace.start("serve", "fake:echo", "--home", "cellar", "--port", port)
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
    yield Running(f"http://127.0.0.1:{port}/v1", key, workspace.path("cellar"), process)
    process.kill()
    process.communicate()


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        return httpx2.get(url, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def curl(gateway: Running, **extra: object) -> str:
    """What curl prints of a chat completion."""
    command = ["curl", "--silent", "--no-buffer", "--noproxy", "*", f"{gateway.url}/chat/completions"]
    command += ["-H", f"Authorization: Bearer {gateway.key}", "-d", json.dumps({**BODY, **extra})]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="this system has no curl")


@needs_curl
def test_curl_gets_an_answer(gateway: Running) -> None:
    answer = json.loads(curl(gateway))
    assert answer["choices"][0]["message"]["content"] == "peat and smoke"
    assert answer["usage"]["total_tokens"] == 6


@needs_curl
def test_curl_sees_the_answer_grow(gateway: Running) -> None:
    events = [line.removeprefix("data: ") for line in curl(gateway, stream=True).splitlines() if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(pieces) == "peat and smoke"
    assert len([p for p in pieces if p]) > 1


def test_the_official_client_gets_an_answer_and_a_stream(gateway: Running) -> None:
    client = openai.OpenAI(base_url=gateway.url, api_key=gateway.key, http_client=openai.DefaultHttpxClient())
    with client:
        assert [m.id for m in client.models.list()] == ["fake:echo"]
        answer = client.chat.completions.create(model="fake:echo", messages=[MALT])
        assert answer.choices[0].message.content == "malt"
        stream = client.chat.completions.create(model="fake:echo", messages=[MALT], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "malt"


def test_every_answer_is_logged_with_its_account(gateway: Running) -> None:
    curl(gateway, seed=5)
    assert {e.account for e in gateway.log()} == {"alice"}
    assert gateway.log()[-1].sampling.seed == 5


def test_a_key_is_in_no_file(gateway: Running) -> None:
    assert all(gateway.key.encode() not in f.read_bytes() for f in gateway.home.iterdir())


def test_a_second_gateway_on_one_home_is_refused(gateway: Running, workspace: Workspace) -> None:
    said = workspace.refused(1, "serve", "fake:echo", "--home", "cellar", "--port", "0")
    assert said.startswith("cellar: is in use by another process; one gateway serves a home")


def test_people_s_words_and_keys_are_their_owners_alone(gateway: Running) -> None:
    curl(gateway)
    assert stat.S_IMODE(gateway.home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in gateway.home.iterdir()} == {0o600}


def test_keys_are_listed_and_revoked_while_the_gateway_runs(gateway: Running, workspace: Workspace) -> None:
    key = workspace.call("serve", "fake:echo", "--home", "cellar", "--new-key", "mallory").out.strip()
    headers = {"authorization": f"Bearer {key}"}
    assert httpx2.get(f"{gateway.url}/models", headers=headers, trust_env=False).status_code == 200
    assert workspace.call("keys", "revoke", "mallory", "--home", "cellar").out == "revoked: 1\n"
    assert httpx2.get(f"{gateway.url}/models", headers=headers, trust_env=False).status_code == 401
    listed = workspace.call("keys", "list", "--home", "cellar").out.splitlines()
    assert [line.split()[0] for line in listed] == ["alice", "mallory"]
    assert [", revoked 20" in line for line in listed] == [False, True]
    assert key not in "".join(listed)
    rows = json.loads(workspace.call("keys", "list", "--home", "cellar", "--json").out)
    assert [row["revoked_at_s"] is None for row in rows] == [True, False]
    assert workspace.refused(1, "keys", "revoke", "nobody", "--home", "cellar").startswith(
        "cellar: account 'nobody' has no valid key"
    )
    assert workspace.refused(1, "keys", "list", "--home", "elsewhere").startswith("elsewhere/keys.sqlite: no such file")


@pytest.mark.parametrize("name", ["", " ", "bad\nname"])
def test_a_key_needs_an_account_with_a_name(workspace: Workspace, name: str) -> None:
    assert workspace.refused(1, "serve", "fake:echo", "--home", "none", "--new-key", name).startswith("--new-key: ")
    assert not workspace.path("none").exists()


def test_ctrl_c_ends_it(gateway: Running) -> None:
    stopped = interrupt(gateway.process)
    assert stopped.code == 130
    assert (stopped.out, stopped.err) == ("", "interrupted; the same command continues where it was\n")


def test_a_gateway_without_keys_says_how_to_make_one(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
    process = workspace.start("serve", "fake:echo", "--home", "empty", "--port", port)
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
    stopped = interrupt(process)
    assert stopped.progress.splitlines()[0].endswith(" loading fake:echo")
    assert stopped.err.splitlines()[0] == (
        "warning: no account has a key yet; create one: spiritsafe serve fake:echo --home empty --new-key NAME"
    )
    assert ended(process).code == 130


@pytest.mark.parametrize(
    ("words", "said"), [(["tiny.toml"], "guarded:default"), (["tiny.toml", "--policy", "strict"], "guarded:strict")]
)
def test_a_recipe_is_served_as_its_guarded_teacher(workspace: Workspace, words: list[str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
    key = workspace.call("serve", "tiny.toml", "--home", "guarded", "--new-key", "alice").out.strip()
    process = workspace.start("serve", *words, "--home", "guarded", "--port", port)
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
    try:
        served = Running(f"http://127.0.0.1:{port}/v1", key, workspace.path("guarded"), process)
        body = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "one two"}]}
        headers = {"authorization": f"Bearer {served.key}"}
        with httpx2.Client(trust_env=False, timeout=60) as client:
            assert client.post(f"{served.url}/chat/completions", json=body, headers=headers).status_code == 200
        assert served.log()[-1].model.startswith(said)
        assert served.log()[-1].model.endswith("+./tiny")
    finally:
        assert interrupt(process).code == 130


def exchange(account: str, number: int) -> Exchange:
    """One logged exchange of 10 tokens."""
    return Exchange(
        id=f"{account}-{number}",
        account=account,
        model="fake:echo",
        model_digest="0" * 64,
        messages=(Message(role="user", content=f"{account} asks {number}"),),
        sampling=Sampling(seed=number),
        answer="ten words",
        usage=Usage(prompt_tokens=3, completion_tokens=10),
    )


@pytest.fixture
def log(workspace: Workspace) -> Iterator[Path]:
    """A log of 19 ordinary accounts, one that asks as they do, and one that draws off."""
    counts = {f"regular-{i:02d}": 1 + i % 5 for i in range(19)} | {"calm": 3, "thirsty": 60}
    path = workspace.path("log.jsonl")
    append_jsonl(path, [exchange(account, i) for account, num in counts.items() for i in range(num)])
    yield path
    path.unlink()


CALIBRATION = [word for i in range(19) for word in ("--calibrate", f"regular-{i:02d}")]


def test_the_watch_judges_a_log(workspace: Workspace, log: Path) -> None:
    done = workspace.call("watch", log.name, *CALIBRATION, "--json")
    assert (done.code, done.err) == (0, "")
    found = {v["subject"]: v for v in json.loads(done.out)["verdicts"]}
    assert {account: v["rejected"] for account, v in found.items()} == {"calm": False, "thirsty": True}
    assert found["thirsty"]["p_value"] == pytest.approx(1 / 20)
    assert found["thirsty"]["value"] == 600
    assert "thirsty" in workspace.call("watch", log.name, *CALIBRATION).out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (
            ["--calibrate", "regular-9"],
            2,
            "watch: account 'regular-9' has no exchange in the log; did you mean 'regular",
        ),
        (["--calibrate", "regular-01"], 2, "watch.alpha: 0.05 is below 1/2, the least p-value; "),
        ([*CALIBRATION, "--judge", "regular-01"], 2, "watch: account 'regular-01' is judged and calibrates"),
        ([*CALIBRATION, "--feature", "answer_token"], 2, "watch.feature: no feature 'answer_token', did you mean"),
    ],
)
def test_a_watch_that_cannot_be_honest_is_refused(
    workspace: Workspace, log: Path, words: list[str], code: int, line: str
) -> None:
    assert workspace.refused(code, "watch", log.name, *words).startswith(line)


def test_without_ordinary_accounts_the_watch_lists_those_of_the_log_and_says_what_to_type(
    workspace: Workspace, log: Path
) -> None:
    timed = exchange("late", 0).model_copy(update={"started_at_s": 1e9})
    append_jsonl(log, [timed])
    done = workspace.call("watch", log.name)
    assert done.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    assert rows["account"] == ["requests", "answer", "tokens", "first", "last"]
    assert rows["thirsty"] == ["60", "600", "unknown", "unknown"]
    assert rows["late"] == ["1", "10", *["2001-09-09T01:46:40+00:00"] * 2]
    assert len(rows) == 23
    assert "19 or more at --alpha 0.05: spiritsafe watch log.jsonl --calibrate NAME" in done.err


def test_a_log_without_an_exchange_says_so(workspace: Workspace, log: Path) -> None:
    log.write_text("")
    assert workspace.refused(1, "watch", log.name).startswith("log.jsonl: holds no exchange; ")


def test_the_watch_reads_a_log_whose_last_line_is_being_written(workspace: Workspace, log: Path) -> None:
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"version":1,"id":"ab')
    done = workspace.call("watch", log.name, *CALIBRATION, "--json")
    assert done.code == 0
    assert done.err == "warning: log.jsonl: the last line is broken and was left out\n"
    assert log.read_bytes() == whole + b'{"version":1,"id":"ab'


def test_the_watch_names_a_broken_line(workspace: Workspace, log: Path) -> None:
    whole = log.read_text()
    for line, reason in (("{}", "has no seal"), ('{"id": ', "is broken or cut off")):
        log.write_text(f"{line}\n{whole}")
        assert workspace.refused(1, "watch", log.name, *CALIBRATION).startswith(f"log.jsonl: line 1 {reason}")
