"""A key goes to its own host and no other, in the clear to this machine alone, and is never told."""

import os
from pathlib import Path

import httpx2
import pytest

from spiritsafe.errors import UsageError
from spiritsafe.models.keys import bind, is_loopback, key_of, masked, server_of, urls_in

SECRET = "sk-a-key-of-the-vendor"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.endswith("_API_KEY") or n.startswith("SPIRITSAFE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def key(url: str) -> str | None:
    """The key that this URL's server would be sent."""
    return key_of(httpx2.URL(url))


def test_a_vendor_s_variable_goes_to_the_vendor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert key("https://api.openai.com/v1") == SECRET
    for other in (
        "http://api.openai.com/v1",
        "http://127.0.0.1:8000/v1",
        "https://api.openai.com.evil.example/v1",
        "https://api-openai.com/v1",
        "https://\u0430pi.openai.com/v1",  # a Cyrillic a
        "https://api.mistral.ai/v1",
    ):
        assert key(other) is None


def test_our_own_variable_goes_to_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_API_KEY", SECRET)
    assert key("http://127.0.0.1:8000/v1") == key("http://localhost/v1") == key("http://[::1]:1/v1") == SECRET
    assert key("https://vllm.example/v1") is None


def test_a_host_s_variable_is_that_of_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_KEY_A_B_EXAMPLE", SECRET)
    monkeypatch.setenv("SPIRITSAFE_KEY_127_0_0_1_8001", "sk-of-that-port")
    assert key("https://a.b.example/v1") == key("https://A.B.example:444/v1") == SECRET
    assert key("http://127.0.0.1:8001/v1") == "sk-of-that-port"
    assert key("http://127.0.0.1:8002/v1") is None
    with pytest.raises(
        UsageError, match=r"is not the variable of a-b\.example; for '-' write '__': SPIRITSAFE_KEY_A__B"
    ):
        key("https://a-b.example/v1")
    monkeypatch.setenv("SPIRITSAFE_KEY_A__B_EXAMPLE", "sk-with-a-hyphen")
    assert key("https://a-b.example/v1") == "sk-with-a-hyphen"


def test_the_keyring_is_read_in_every_spelling_and_only_if_it_is_private(tmp_path: Path) -> None:
    path = tmp_path / "spiritsafe" / "keys.toml"
    path.parent.mkdir()
    path.write_text(f'"quoted.example" = "{SECRET}"\nplain.example = "k2"\n["127.0.0.1:81"]\nkey = "k3"\n')
    path.chmod(0o600)
    found = [key(u) for u in ("https://quoted.example/v1", "https://plain.example", "http://127.0.0.1:81/v1")]
    assert found == [SECRET, "k2", "k3"]
    assert key("https://other.example") is None
    path.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others; chmod 600"):
        key("https://quoted.example/v1")
    path.chmod(0o600)
    path.write_text(f'"quoted.example" = {SECRET}')
    with pytest.raises(UsageError, match="is not TOML") as caught:
        key("https://quoted.example/v1")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("bad", ["sk-schl\u00fcssel", "sk-a\nb", "sk a b", "sk-\x00b"])
def test_a_key_that_no_header_carries_is_refused_in_one_line_without_it(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    if "\x00" in bad:  # no environment holds it
        bad = "sk-\x01b"
    monkeypatch.setenv("SPIRITSAFE_KEY_127_0_0_1", bad)
    with pytest.raises(UsageError, match="SPIRITSAFE_KEY_127_0_0_1: holds a key with") as caught:
        key("http://127.0.0.1/v1")
    assert bad not in str(caught.value)


def test_a_line_end_after_a_key_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_API_KEY", f"{SECRET}\r\n")
    assert key("http://127.0.0.1/v1") == SECRET


@pytest.mark.parametrize("host", ["192.168.1.4:8000", "vllm:8000", "evil.example", "0x7f.1", "127.0.0.1.evil.example"])
def test_plain_http_leaves_this_machine_only_if_it_is_allowed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(UsageError, match=r"is plain http to another machine.*SPIRITSAFE_ALLOW_HTTP="):
        server_of(f"http://{host}/v1")
    monkeypatch.setenv("SPIRITSAFE_ALLOW_HTTP", f"x, {host.partition(':')[0]}")
    assert server_of(f"http://{host}/v1").scheme == "http"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1@evil.example/v1", "https://u:p@h/v1", "https://a b/v1", "https:///v1"]
)
def test_a_url_that_hides_its_host_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        server_of(url)
    assert ":p@" not in str(caught.value)


def test_this_machine_is_known_by_all_its_names() -> None:
    assert all(map(is_loopback, ("localhost", "x.localhost", "127.3.2.1", "::1", "::ffff:127.0.0.1", "0.0.0.0")))
    assert not any(map(is_loopback, ("10.0.0.1", "localhost.evil.example", "128.0.0.1", "::ffff:8.8.8.8")))


def test_an_option_binds_a_variable_to_the_one_host_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", SECRET)
    monkeypatch.setenv("SPIRITSAFE_KEY_A_EXAMPLE", "")  # so that it is taken back afterwards
    monkeypatch.setenv("SPIRITSAFE_KEY_B_EXAMPLE", "")
    one = urls_in(["openai:m@https://a.example/v1?drop=seed", "smollm2"])
    bind("MINE", one)
    assert key("https://a.example/v1") == SECRET
    two = urls_in(["guarded:default~openai:r@https://a.example/v1+openai:m@https://b.example/v1"])
    with pytest.raises(UsageError, match=r"is for one host, named are: a\.example, b\.example; HOST=MINE"):
        bind("MINE", two)
    bind("b.example=MINE", two)
    assert key("https://b.example/v1") == SECRET
    with pytest.raises(UsageError, match="NONE is not set"):
        bind("NONE", one)


def test_a_key_is_masked_but_a_word_is_not() -> None:
    assert masked(f"you sent Bearer {SECRET}!", SECRET) == "you sent Bearer [key]!"
    assert masked("the list is EMPTY", "EMPTY") == "the list is EMPTY"
