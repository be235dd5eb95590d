"""Counts calls of allocating functions in running processes.

A preloaded counter cannot see an allocator that is linked into the program (mimalloc, Go's), and
a tracer that stops the process at every call changes what is measured. So the kernel counts: a
uprobe at the entry of each function, opened by perf_event_open on every thread. The program must
keep its symbols; the C library exports its own.
"""

import ctypes
import os
import platform
import re
import struct

LIBC_NAMES = {"malloc", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign",
              "valloc", "pvalloc", "reallocarray"}
OWN_NAMES = re.compile(
    r"(mi_(malloc|zalloc|calloc|realloc|rezalloc)(_small)?(_aligned)?"
    r"|runtime\.mallocgc|je_malloc|rallocx|mallocx)")
SYSCALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
UPROBE_TYPE = "/sys/bus/event_source/devices/uprobe/type"


class CannotCount(Exception):
    """Why allocations cannot be counted here, as a sentence."""


def _sections(data):
    """The section headers of a 64-bit ELF file: (type, offset, size, link, entry size)."""
    if data[:5] != b"\x7fELF\x02" or data[5] != 1:
        raise CannotCount("not a 64-bit little-endian program")
    at, = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    for i in range(count):
        kind, _flags, _addr, offset, length, link, _info, _align, entry = struct.unpack_from(
            "<IQQQQIIQQ", data, at + i * size + 4)
        yield kind, offset, length, link, entry


def _file_offset(data, address):
    """Where in the file a virtual address lies."""
    at, = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    for i in range(count):
        kind, _flags, offset, vaddr, _paddr, file_size = struct.unpack_from(
            "<IIQQQQ", data, at + i * size)
        if kind == 1 and vaddr <= address < vaddr + file_size:
            return address - vaddr + offset
    return None


def function_offsets(path, wanted):
    """File offsets of the functions whose names `wanted` accepts, each once."""
    with open(path, "rb") as file:
        data = file.read()
    if b"\xff Go buildinf:" in data and not any(kind == 2 for kind, *_ in _sections(data)):
        raise CannotCount("a Go program without symbols: its allocations cannot be counted")
    sections = list(_sections(data))
    found = {}
    for kind, offset, length, link, entry in sections:
        if kind not in (2, 11) or not entry:  # SHT_SYMTAB, SHT_DYNSYM
            continue
        names = sections[link][1]
        for at in range(offset, offset + length, entry):
            name_at, info, _other, index, value, _size = struct.unpack_from("<IBBHQQ", data, at)
            if info & 15 not in (2, 10) or not index or not value:  # defined functions
                continue
            name = data[names + name_at:data.index(b"\0", names + name_at)].decode("latin-1")
            if wanted(name):
                where = _file_offset(data, value)
                if where is not None:
                    found.setdefault(where, name)
    return found


def _mapped(pid, name):
    """The path of a library that a process has mapped, or None."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            path = line.split(None, 5)[-1].strip()
            if "/" in path and os.path.basename(path).startswith(name):
                return path
    return None


def probes_of(pid):
    """(path, offset) of every allocating function that the process can call."""
    program = os.readlink(f"/proc/{pid}/exe")
    found = [(program, at) for at in function_offsets(program, OWN_NAMES.fullmatch)]
    own = bool(found)
    libc = _mapped(pid, "libc.so")
    if libc:
        found += [(libc, at) for at in function_offsets(libc, LIBC_NAMES.__contains__)]
    if not own and not libc:
        raise CannotCount("its allocator has no symbols: it cannot be counted")
    return found


class Counter:
    """Counts from its creation on; a context manager."""

    def __init__(self, pids):
        self.fds = []
        number = SYSCALLS.get(platform.machine())
        try:
            with open(UPROBE_TYPE, encoding="ascii") as file:
                kind = int(file.read())
        except OSError:
            kind = None
        if number is None or kind is None:
            raise CannotCount("this kernel offers no uprobes to perf_event_open")
        syscall = ctypes.CDLL(None, use_errno=True).syscall
        try:
            for pid in pids:
                probes = probes_of(pid)
                for thread in map(int, os.listdir(f"/proc/{pid}/task")):
                    for path, offset in probes:
                        self.fds.append(self._open(syscall, number, kind, thread, path, offset))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _open(syscall, number, kind, thread, path, offset):
        name = ctypes.create_string_buffer(path.encode())
        # struct perf_event_attr, version 5: type, size, config, and the uprobe's path and offset
        # in config1 and config2; all the rest is zero, so it counts in user and kernel mode.
        attr = bytearray(112)
        struct.pack_into("=II", attr, 0, kind, len(attr))
        struct.pack_into("=QQ", attr, 56, ctypes.addressof(name), offset)
        buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
        close_on_exec = 8
        fd = syscall(ctypes.c_long(number), buffer, ctypes.c_int(thread), ctypes.c_int(-1),
                     ctypes.c_int(-1), ctypes.c_ulong(close_on_exec))
        if fd < 0:
            raise CannotCount(f"perf_event_open: {os.strerror(ctypes.get_errno())} "
                              "(it needs root, or kernel.perf_event_paranoid ≤ -1)")
        return fd

    def read(self):
        """Calls counted so far."""
        return sum(struct.unpack("=Q", os.read(fd, 8))[0] for fd in self.fds)

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
