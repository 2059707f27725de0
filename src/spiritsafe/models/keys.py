"""Which key goes to which server: one for each host, never to another, and in the clear only where that is allowed.

Looked for in this order: `SPIRITSAFE_KEY_<HOST>_<PORT>`, `SPIRITSAFE_KEY_<HOST>`, the keyring
`~/.config/spiritsafe/keys.toml` (mode 0600; `"host" = "key"` or `"host:port" = "key"`), the vendor's own variable
for the vendor's own host, and on loopback alone `SPIRITSAFE_API_KEY`. In a variable's name the host is in capitals,
`_` stands for `.` and `:`, `__` for `-`, `___` for `_`: two hosts never share a variable. No address, recipe or
policy can name a variable: who writes one could then choose which secret is sent where.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from spiritsafe.errors import UsageError

VARIABLE = "SPIRITSAFE_KEY_"
ALLOW_HTTP = "SPIRITSAFE_ALLOW_HTTP"
VENDORS = {
    "api.openai.com": "OPENAI_API_KEY",
    "eu.api.openai.com": "OPENAI_API_KEY",
    "us.api.openai.com": "OPENAI_API_KEY",
    "api.anthropic.com": "ANTHROPIC_API_KEY",
    "generativelanguage.googleapis.com": "GEMINI_API_KEY",
    "api.mistral.ai": "MISTRAL_API_KEY",
    "api.deepseek.com": "DEEPSEEK_API_KEY",
    "api.groq.com": "GROQ_API_KEY",
    "api.together.xyz": "TOGETHER_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
}
# A shorter key may be a word of any text ("EMPTY", "none"): masking it there would change what models say.
LEAST_MASKED = 12
HOST = re.compile(r"[a-z0-9._:-]+")


def server_of(url: str) -> httpx2.URL:
    """The URL as the client will read it. Raises `UsageError` for one that cannot be asked, or not in the clear."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise UsageError(url, f"is no URL ({error})") from None
    if parsed.userinfo:
        raise UsageError(host_of(parsed), "has a name or password in its URL", f"give a key: {variable(parsed)}")
    if parsed.scheme not in ("http", "https") or not HOST.fullmatch(host_of(parsed)):
        raise UsageError(url, "is no http or https URL", "e.g. http://127.0.0.1:8000/v1")
    if parsed.scheme == "http" and not is_loopback(host_of(parsed)) and host_of(parsed) not in _allowed_http():
        hint = f"use https, or allow it: {ALLOW_HTTP}={host_of(parsed)}"
        raise UsageError(url, "is plain http to another machine: anyone between could read prompts and keys", hint)
    return parsed


def host_of(url: httpx2.URL) -> str:
    """The host in ASCII: other scripts have letters whose capitals are those of another host."""
    return url.raw_host.decode("ascii").lower()


def key_of(url: httpx2.URL) -> str | None:
    """The key of this server; None if there is none. Raises `UsageError` for one that no header can carry."""
    where, key = _found(url)
    if not key:
        _check_not_misspelt(url)
        return None
    if not key.isascii():
        raise UsageError(where, "holds a key with a character that is not ASCII", "copy it again from the provider")
    if not key.isprintable() or " " in key:
        raise UsageError(where, "holds a key with a blank, a line end or a control character within", "copy it again")
    return key


def urls_in(addresses: Sequence[str]) -> list[str]:
    """The servers that addresses name, their own and those within (`guarded:...`, a judge's)."""
    return [url for address in addresses for url in re.findall(r"https?://[^?#\s~+]+", address, re.IGNORECASE)]


def bind(name: str, urls: Sequence[str]) -> None:
    """What `--key-env [HOST=]NAME` asks: the variable's key goes to that host, or to the one host that is named.

    Raises `UsageError` for a variable that is not set, and if it is not clear which host is meant.
    """
    host, _, variable_name = name.rpartition("=")
    if not os.environ.get(variable_name):
        raise UsageError(f"--key-env {name}", f"{variable_name} is not set", f"export {variable_name}=...")
    hosts = [host.lower()] if host else sorted({httpx2.URL(url).netloc.decode() for url in urls})
    if len(hosts) != 1:
        named = ", ".join(hosts) or "none"
        raise UsageError(f"--key-env {name}", f"is for one host, named are: {named}", f"HOST={variable_name}")
    os.environ[VARIABLE + _spelt(hosts[0])] = os.environ[variable_name]


def masked(text: str, key: str | None) -> str:
    """The text without the key."""
    return text.replace(key, "[key]") if key and len(key) >= LEAST_MASKED else text


def variable(url: httpx2.URL) -> str:
    """The variable that holds the key of this host."""
    return VARIABLE + _spelt(host_of(url))


def is_loopback(host: str) -> bool:
    """Whether the host is this machine (0.0.0.0, which servers print as their address, among them)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address: Any = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address  # ::ffff:127.0.0.1
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _found(url: httpx2.URL) -> tuple[str, str]:
    """Where the key was found, and the key without blanks and line ends around it; ("", "") if nowhere."""
    host = host_of(url)
    places = (f"{host}:{url.port}", host) if url.port else (host,)
    for place in places:
        if key := os.environ.get(VARIABLE + _spelt(place), "").strip():
            return VARIABLE + _spelt(place), key
    held = _keyring()
    for place in places:
        if key := held.get(place, "").strip():
            return f"{_keyring_path()}: {place}", key
    vendor = VENDORS.get(host) if url.scheme == "https" else None
    name = vendor or ("SPIRITSAFE_API_KEY" if is_loopback(host) else "")
    return name, os.environ.get(name, "").strip() if name else ""


def _check_not_misspelt(url: httpx2.URL) -> None:
    """`_` for a `-` would give two hosts one variable; who writes it so is told."""
    plain = VARIABLE + "".join(c if c.isalnum() else "_" for c in host_of(url)).upper()
    if plain != variable(url) and os.environ.get(plain):
        raise UsageError(plain, f"is not the variable of {host_of(url)}", f"for '-' write '__': {variable(url)}")


def _spelt(place: str) -> str:
    signs = {"-": "__", "_": "___", "[": "", "]": ""}
    return "".join(c if c.isalnum() else signs.get(c, "_") for c in place).upper()


def _allowed_http() -> list[str]:
    return [host.strip().lower() for host in os.environ.get(ALLOW_HTTP, "").split(",")]


def _keyring_path() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "spiritsafe" / "keys.toml"


def _keyring() -> dict[str, str]:
    path = _keyring_path()
    if not path.is_file():
        return {}
    if path.stat().st_mode & 0o077:
        raise UsageError(str(path), "can be read by others", f"chmod 600 {path}")
    try:
        return _flat(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own words may quote the key.
        raise UsageError(str(path), "is not TOML", 'a line is "host" = "key"') from None


def _flat(table: dict[str, Any], head: str = "") -> dict[str, str]:
    """`a.b.com = "key"` without quotation marks is nested tables to TOML; `["a.b.com"]` may hold `key = "..."`."""
    found: dict[str, str] = {}
    for name, value in table.items():
        full = f"{head}.{name}" if head else name
        if isinstance(value, dict):
            found |= _flat(value, full)
        elif isinstance(value, str):
            found[full.removesuffix(".key").lower()] = value
        else:
            raise UsageError(str(_keyring_path()), f"{full} is no text", 'a line is "host" = "key"')
    return found
