"""Write the locks beside this file: `python requirements/lock.py` (needs uv), after constraints.txt or pyproject.toml.

Each holds one set with its dependencies at the versions of constraints.txt, and the sha256 of every file that PyPI has
of them, for any machine. torch and what only its builds for graphics cards ask for are left out: an index of CPU builds
serves another file of the same version, so torch has its exact version and no hash.
"""

import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SETS = {"torch": ("torch",), "dev": ("torch", "dev"), "docs": ("docs",), "guard": ("guard",)}
# What builds this project and the few packages that come as source.
BUILD = ("editables", "hatchling", "pip", "setuptools")
HEAD = "# Written by requirements/lock.py: {}, without torch. Install with --require-hashes --no-deps.\n"


def main() -> None:
    """Resolve each set by uv and keep what constraints.txt names."""
    pins = [line for line in (HERE.parent / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = {line.partition("==")[0] for line in pins} - {"torch"}
    for name, extras in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            build, out = Path(folder, "build.in"), Path(folder, "lock.txt")
            build.write_text("".join(f"{each}\n" for each in BUILD))
            command = ["uv", "pip", "compile", "-q", "--universal", "--python-version", "3.11.5", "--generate-hashes"]
            command += ["--no-header", "--no-annotate", "-c", "constraints.txt", "-o", str(out), str(build)]
            command += ["pyproject.toml", *(f"--extra={extra}" for extra in extras)]
            subprocess.run(command, check=True, cwd=HERE.parent)
            parts = re.split(r"^(?=\S)", out.read_text(), flags=re.MULTILINE)
        kept = [part for part in parts if re.split(r"[=\[ ]", part)[0] in names]
        (HERE / f"{name}.txt").write_text(HEAD.format(", ".join(extras)) + "".join(kept))


if __name__ == "__main__":
    main()
