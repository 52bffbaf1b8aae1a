"""Object files made executable without LLVM, which takes 40 MB to load: ELF for x86-64 on Linux.

LLVM writes kernels in the large code model: every reference is a full 64-bit address. So putting the sections into
memory and adding up addresses is all there is to do. Whatever else an object holds is left to LLVM's own linker.

Source: System V ABI (ELF-64 object files) and its AMD64 supplement, section 4.4 (relocation).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import platform
import struct
import sys
from typing import NamedTuple

_ELF64_LITTLE = b"\x7fELF\x02\x01\x01"
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _RELA, _UNWIND = 1, 2, 4, 0x70000001  # types of sections
_WRITE, _ALLOC = 1, 2  # flags of sections
_UNDEFINED = 0  # in place of a symbol's section
_ABSOLUTE = 1  # R_X86_64_64


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    at: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


_SECTION, _SYMBOL, _RELOCATION = "<IIQQQQIIQQ", "<IBBHQQ", "<QIIq"


class _Unusual(Exception):
    """Something that kernels do not have."""


def link(code: bytes, symbol: str) -> int:
    """The address of ``symbol`` once the object file ``code`` lies in executable memory; 0 where LLVM must do it.

    The memory is never freed: a thread may still be running in it when the interpreter shuts down.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return 0
    try:
        return _link(code, symbol)
    except (_Unusual, OSError, struct.error, LookupError, ValueError):  # the last three: it is damaged
        return 0


def _link(code: bytes, wanted: str) -> int:
    if code[:7] != _ELF64_LITTLE or struct.unpack_from("<HH", code, 16) != (_RELOCATABLE, _X86_64):
        raise _Unusual("another format")
    (at,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [_Section._make(s) for s in struct.iter_unpack(_SECTION, code[at : at + size * count])]

    image, places = bytearray(), {}
    for i, section in enumerate(sections):
        if not section.flags & _ALLOC or section.type == _UNWIND:
            continue
        if section.flags & _WRITE or section.type != _PROGBITS:
            raise _Unusual("memory of its own")
        image += bytes(-len(image) % max(section.align, 1))
        places[i] = len(image)
        image += _content(code, section)

    (table,) = (s for s in sections if s.type == _SYMTAB)
    names = _content(code, sections[table.link])
    inside, outside, named = {}, {}, {}  # symbols by number: where in the image, or which C function; and by name
    for number, symbol in enumerate(struct.iter_unpack(_SYMBOL, _content(code, table))):
        start, _, _, section, value, _ = symbol
        name = names[start : names.index(b"\0", start)].decode()
        if section in places:
            inside[number] = named[name] = places[section] + value
        elif section == _UNDEFINED:
            outside[number] = name

    own = []  # references to the image itself: where, and to what
    for section in (s for s in sections if s.type == _RELA and s.info in places):
        for offset, kind, number, addend in struct.iter_unpack(_RELOCATION, _content(code, section)):
            if kind != _ABSOLUTE:
                raise _Unusual("a reference of another kind")
            place = places[section.info] + offset
            if number in inside:
                own.append((place, inside[number] + addend))
            else:
                struct.pack_into("<Q", image, place, _function(outside[number]) + addend)

    if wanted not in named:
        raise _Unusual("no such symbol")
    base = _memory(len(image))
    for place, target in own:
        struct.pack_into("<Q", image, place, base + target)
    ctypes.memmove(base, bytes(image), len(image))
    _protect(base, len(image))
    return base + named[wanted]


def _content(code: bytes, section: _Section) -> bytes:
    return code[section.at : section.at + section.size]


def _function(name: str) -> int:
    """The address of a function of the C library."""
    for library in _libraries():
        with contextlib.suppress(AttributeError):
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    raise _Unusual(f"{name} is nowhere")


@functools.cache
def _libraries() -> list[ctypes.CDLL]:
    """This process, and glibc's mathematics where nothing has loaded them yet."""
    found = [ctypes.CDLL(None, use_errno=True)]
    with contextlib.suppress(OSError):
        found.append(ctypes.CDLL("libm.so.6"))
    return found


def _memory(size: int) -> int:
    """The address of new memory that can be written."""
    function = _libraries()[0].mmap
    function.restype, function.argtypes = ctypes.c_void_p, [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
    ]  # fmt: skip
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = function(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return int(address)


def _protect(address: int, size: int) -> None:
    """Memory that was written may now be run, and no longer be written."""
    function = _libraries()[0].mprotect
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if function(address, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
