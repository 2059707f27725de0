"""What keeps a checking process from doing anything but compute; each layer by itself, and told if it is active.

    no evaluation    text is never compiled or run, files, sockets and programs are not opened (Python's own audit)
    limits           processor time, memory, no file grows (the kernel, everywhere)
    no network       a user and network namespace of its own (Linux, where allowed)
    system calls     only those that read, compute and end; others are refused (seccomp, Linux on x86-64 and ARM64)

The last two need Linux. What must hold without them: no scorer that is run evaluates an answer (`families`).
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from contextlib import suppress
from types import CodeType
from typing import Any

MEMORY = 2 << 30
NO_NETWORK = "no network"
SYSTEM_CALLS = "system calls"
ALWAYS = ("no evaluation", "limits")

# Linux: clone flags for namespaces of users, network, System V IPC; prctl options; seccomp's filter mode.
_NEWUSER, _NEWNET, _NEWIPC = 0x10000000, 0x40000000, 0x08000000
_SET_SECCOMP, _NO_NEW_PRIVS, _FILTER = 22, 38, 2
# BPF: load a word of the call's description; compare; return what to do.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # refused calls fail with EPERM
_NUMBER_AT, _ARCH_AT, _ARGS_AT = 0, 4, 16
# Opening to write, create, cut, append or as a nameless file.
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
_OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND  # as this system numbers them
# sympy runs a function there that it writes itself; all that an answer decides of it is the number of its variables.
_MONOMIALS = os.path.join("sympy", "polys", "monomials.py")
# machine: (its number in seccomp, calls that open by which argument of flags, calls that are allowed)
_CALLS: dict[str, tuple[int, dict[int, int], tuple[int, ...]]] = {
    # open, openat; read write close stat fstat lstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
    # rt_sigreturn pread64 access sched_yield mremap madvise getpid exit uname fcntl getcwd readlink gettimeofday
    # getuid getgid geteuid getegid sigaltstack gettid futex getdents64 clock_gettime clock_getres exit_group
    # newfstatat readlinkat faccessat getrandom statx rseq faccessat2
    "x86_64": (
        0xC000003E,
        {2: 1, 257: 2},
        (
            *(0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 17, 21, 24, 25, 28, 39, 60, 63, 72, 79, 89, 96),
            *(102, 104, 107, 108, 131, 186, 202, 217, 228, 229, 231, 262, 267, 269, 318, 332, 334, 439),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        {56: 2},
        (
            *(63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 67, 124, 216, 233, 172, 93, 160, 25, 17, 78, 169),
            *(174, 175, 176, 177, 132, 178, 98, 61, 113, 114, 94, 79, 48, 278, 291, 293, 439),
        ),
    ),
}
# What Python reports of itself before it does it, and what no check needs.
_REFUSED = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn"),
    *("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo", "os.remove", "os.rename", "os.rmdir"),
    *("os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.kill", "os.putenv"),
    *("ctypes.dlopen", "ctypes.dlsym", "pickle.find_class", "resource.setrlimit"),
)


def leave_network() -> bool:
    """Take this process, which has one thread yet, and its forks off all networks; whether that was possible."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return any(libc.unshare(flags) == 0 for flags in (_NEWUSER | _NEWNET | _NEWIPC, _NEWNET))


def can_filter() -> bool:
    """Whether system calls can be filtered here."""
    if not sys.platform.startswith("linux") or platform.machine() not in _CALLS:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, 0, 0, 0) == -1 and ctypes.get_errno() == 14)  # EFAULT: it would read


def limit(seconds: float) -> None:
    """From here on the kernel ends this process at its limits, and it writes no file and forks no process."""
    cpu = int(seconds) + 1
    bounds = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for name, most in bounds.items():
        with suppress(ValueError, OSError):  # macOS knows no bound of the address space
            resource.setrlimit(name, (most, most))


def close_all() -> None:
    """Leave no descriptor that reaches anything: what a library prints goes nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 4096)


def filter_calls() -> None:
    """Refuse all system calls but those that read, compute and end. For this process and for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program(*_CALLS[platform.machine()])
    # `struct sock_fprog`: the number of instructions, and where they lie.
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _FILTER, head, 0, 0):
        raise OSError(ctypes.get_errno(), "system calls cannot be filtered")


def refuse_evaluation() -> None:
    """From here on no text is compiled or run, and nothing is opened to write. For this process and for good."""
    sys.addaudithook(_judge)


def _judge(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        raise PermissionError(f"{event} is refused while an answer is checked")
    text = event == "compile" and args[0] is not None and _is_text(args[1])
    text = text or (event == "exec" and isinstance(args[0], CodeType) and _is_text(args[0].co_filename))
    if text and not _is_ours():
        raise PermissionError("an answer is never run")
    if event == "open" and isinstance(args[2], int) and args[2] & _OPEN_TO_WRITE:
        raise PermissionError("nothing is written while an answer is checked")


def _is_text(source: Any) -> bool:
    return not isinstance(source, str) or (source.startswith("<") and not source.startswith("<frozen"))


def _is_ours() -> bool:
    """Whether the text is no answer's: a module is being imported, or sympy makes products of so many powers."""
    frame = sys._getframe(2)
    if frame.f_code.co_filename.endswith(_MONOMIALS):
        return True
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
    return False


def _program(machine: int, opening: dict[int, int], allowed: tuple[int, ...]) -> bytes:
    """The filter: another machine's calls end the process, opening is for reading, what is not named is refused."""

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    steps = [step(_LOAD, _ARCH_AT), step(_EQUAL, machine, 1, 0), step(_RETURN, _KILL), step(_LOAD, _NUMBER_AT)]
    for number, argument in opening.items():
        steps += [
            step(_EQUAL, number, 0, 4),
            step(_LOAD, _ARGS_AT + 8 * argument),
            step(_ANY_BIT, _WRITING, 0, 1),
            step(_RETURN, _REFUSE),
            step(_RETURN, _ALLOW),
        ]
    for number in allowed:
        steps += [step(_EQUAL, number, 0, 1), step(_RETURN, _ALLOW)]
    return b"".join([*steps, step(_RETURN, _REFUSE)])
