# SPDX-License-Identifier: GPL-2.0-or-later
"""chardev/kevent_uapi.h and pykevent.abi say the same: sizes, offsets, constants, ioctl numbers.

The C programs are generated from the Python side, so that what Python knows is compared; then the
header is read as text, so that nothing in it is unknown to Python.
"""

import ctypes
import enum
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pykevent import abi

HEADER = Path(__file__).parents[2] / "chardev" / "kevent_uapi.h"
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
LANGUAGES = {
    "c99": ["gcc", "-x", "c", "-std=c99"],
    "c17": ["gcc", "-x", "c", "-std=c17"],
    "c++11": ["g++", "-x", "c++", "-std=c++11"],
    "c++17": ["g++", "-x", "c++", "-std=c++17"],
}

STRUCTURES: list[type[ctypes.Structure]] = [
    abi.kevent_request,
    abi.kevent_batch,
    abi.kevent_path,
    abi.kevent_sendfile,
    abi.kevent_event,
    abi.kevent_wait,
    abi.kevent_post,
    abi.kevent_info,
]

ENUMERATIONS: list[tuple[str, type[enum.IntEnum] | type[enum.IntFlag]]] = [
    ("KEVENT_", abi.EventType),
    ("KEVENT_", abi.Flags),
    ("KEVENT_SOCKET_", abi.SocketEvents),
    ("KEVENT_INODE_", abi.InodeEvents),
    ("KEVENT_TIMER_", abi.TimerEvents),
    ("KEVENT_USER_", abi.UserEvents),
    ("KEVENT_NAIO_", abi.NaioEvents),
    ("KEVENT_OP_", abi.Op),
    ("KEVENT_EVENT_", abi.EventFlags),
    ("KEVENT_WAIT_", abi.WaitFlags),
    ("KEVENT_FEATURE_", abi.Feature),
    ("KEVENT_FILE_", abi.FileKind),
]

NUMBERS = [
    "ABI_VERSION",
    "WAIT_FOREVER",
    "NAIO_MAX",
    "SENDFILE_ALL",
    "SENDFILE_EXTRA",
    "EVENT_RECORDS",
    "IOC_MAGIC",
    "IOC_NR_INFO",
    "IOC_NR_ADD",
    "IOC_NR_MODIFY",
    "IOC_NR_REMOVE",
    "IOC_NR_WAIT",
    "IOC_NR_CHANGE_WAIT",
    "IOC_NR_POST",
    "IOC_NR_ADD_PATH",
    "MAX_SIZE",
    "MAX_REQUESTS",
    "MAX_POSTS",
    "MAX_RECORDS",
]

DATA = [0, 1 << 32, 31 << 32, 32 << 32, 33 << 32 | 7, 255 << 32 | 0xFFFFFFFF, 256 << 32]

# Helpers of the header's own, compared through the macros that use them.
INTERNAL = {"KEVENT_IOWR", "KEVENT_IOC_BATCH"}


def constants() -> dict[str, int]:
    """Every plain number, under the header's name."""
    values = {
        prefix + name: int(member)
        for prefix, kind in ENUMERATIONS
        for name, member in kind.__members__.items()
    }
    return values | {f"KEVENT_{name}": getattr(abi, name) for name in NUMBERS}


def calls() -> dict[str, int]:
    """Every macro with arguments, and INFO, applied to several: C expression to value."""
    values = {"KEVENT_IOC_INFO": abi.INFO}
    for n in (0, 1, 2, 17, abi.MAX_REQUESTS):
        values[f"KEVENT_IOC_ADD({n})"] = abi.ADD(n)
        values[f"KEVENT_IOC_MODIFY({n})"] = abi.MODIFY(n)
        values[f"KEVENT_IOC_REMOVE({n})"] = abi.REMOVE(n)
    for n in (0, 1, 256, abi.MAX_RECORDS):
        values[f"KEVENT_IOC_WAIT({n})"] = abi.WAIT(n)
    for n, m in ((0, 0), (1, 0), (0, 1), (3, 5), (127, 256), (291, 1)):
        values[f"KEVENT_IOC_CHANGE_WAIT({n}, {m})"] = abi.CHANGE_WAIT(n, m)
    for n in (0, 1, 100, abi.MAX_POSTS):
        values[f"KEVENT_IOC_POST({n})"] = abi.POST(n)
    for n in (1, 2, 4096):
        values[f"KEVENT_IOC_ADD_PATH({n})"] = abi.ADD_PATH(n)
    for data in DATA:
        values[f"KEVENT_INODE_RENAME({data}ULL)"] = abi.inode_rename(data)
        values[f"KEVENT_NAME_LENGTH({data}ULL)"] = abi.name_length(data)
        values[f"KEVENT_NAME_RECORDS({data}ULL)"] = abi.name_records(data)
    return values


def layouts() -> dict[str, int]:
    """Sizes and offsets: C expression to value."""
    values = {}
    for structure in STRUCTURES:
        name = f"struct {structure.__name__}"
        values[f"sizeof({name})"] = ctypes.sizeof(structure)
        for field in structure._fields_:
            descriptor = getattr(structure, field[0])
            values[f"offsetof({name}, {field[0]})"] = descriptor.offset
            values[f"sizeof((({name} *)0)->{field[0]})"] = descriptor.size
    return values


def without_comments() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)


def can_build_32_bits(directory: Path) -> str:
    """An empty string, or why no 32-bit program can be built and run."""
    for compiler in ("gcc", "g++"):
        program = directory / f"probe-{compiler.replace('+', 'x')}"
        source = '#include <stdio.h>\nint main(void) { return puts("32") < 0; }\n'
        language = "c" if compiler == "gcc" else "c++"
        command = [compiler, "-m32", "-x", language, "-", "-o", str(program)]
        built = subprocess.run(command, input=source, text=True, capture_output=True)
        if built.returncode:
            return f"{compiler} -m32 does not work: {built.stderr.strip().splitlines()[0]}"
        try:
            subprocess.run([program], check=True, capture_output=True)
        except OSError as error:
            return f"32-bit programs do not run here: {error}"
    return ""


@pytest.fixture(scope="module", params=["-m64", "-m32"])
def width(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    option = str(request.param)
    if option == "-m32":
        reason = can_build_32_bits(tmp_path_factory.mktemp("probe"))
        if reason and os.environ.get("CI") == "true":
            pytest.fail(reason)
        if reason:
            pytest.skip(reason)
    return option


@pytest.fixture(params=LANGUAGES)
def compiler(request: pytest.FixtureRequest, width: str) -> list[str]:
    return [*LANGUAGES[request.param], width, *WARNINGS, "-I", str(HEADER.parent)]


def test_header_compiles_alone(compiler: list[str]) -> None:
    source = '#include "kevent_uapi.h"\n#include "kevent_uapi.h"\n'
    command = [*compiler, "-fsyntax-only", "-"]
    built = subprocess.run(command, input=source, text=True, capture_output=True)
    assert built.returncode == 0, built.stderr
    assert not built.stderr


def test_sizes_offsets_and_numbers_are_the_same(compiler: list[str], tmp_path: Path) -> None:
    expected = layouts() | constants() | calls()
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "kevent_uapi.h"']
    lines += ["int main(void)", "{"]
    lines += [f'\tprintf("%llu\\n", (unsigned long long)({text}));' for text in expected]
    lines += ["\treturn 0;", "}", ""]
    program = tmp_path / "numbers"
    command = [*compiler, "-o", str(program), "-"]
    built = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True)
    assert built.returncode == 0, built.stderr
    printed = subprocess.run([program], check=True, text=True, capture_output=True).stdout
    found = dict(zip(expected, map(int, printed.split()), strict=True))
    assert found == expected


def test_every_macro_of_the_header_is_known() -> None:
    defined = set(re.findall(r"#\s*define\s+(KEVENT_\w+)", without_comments()))
    assert len(defined) > 80
    known = {text.partition("(")[0] for text in constants() | calls()} | INTERNAL
    assert defined == known


def test_every_structure_and_field_of_the_header_is_known() -> None:
    found = {
        name: re.findall(r"^\s*(.+?)\s*\b(\w+)((?:\[\d+\])?);", body, flags=re.MULTILINE)
        for name, body in re.findall(r"struct (\w+) \{(.*?)\};", without_comments(), re.DOTALL)
    }
    assert found == {structure.__name__: list(fields_in_c(structure)) for structure in STRUCTURES}


def fields_in_c(structure: type[ctypes.Structure]) -> Iterator[tuple[str, str, str]]:
    names: dict[object, str] = {
        ctypes.c_uint8: "__u8",
        ctypes.c_uint16: "__u16",
        ctypes.c_uint32: "__u32",
        ctypes.c_int32: "__s32",
        ctypes.c_uint64: "__u64",
    }
    for name, kind in (field[:2] for field in structure._fields_):
        if issubclass(kind, ctypes.Array):
            yield names[kind._type_], name, f"[{kind._length_}]"
        elif issubclass(kind, ctypes.Structure):
            yield f"struct {kind.__name__}", name, ""
        else:
            yield names[kind], name, ""


def test_a_number_that_needs_more_than_14_bits_of_size_is_refused() -> None:
    for number, most in (
        (abi.ADD, abi.MAX_REQUESTS),
        (abi.MODIFY, abi.MAX_REQUESTS),
        (abi.REMOVE, abi.MAX_REQUESTS),
        (abi.WAIT, abi.MAX_RECORDS),
        (abi.POST, abi.MAX_POSTS),
    ):
        assert number(most) != number(most - 1)
        with pytest.raises(ValueError, match="16383"):
            number(most + 1)
    with pytest.raises(ValueError, match="16383"):
        abi.CHANGE_WAIT(291, 2)


def test_unknown_bits_survive() -> None:
    for prefix, kind in ENUMERATIONS:
        if issubclass(kind, enum.IntFlag):
            assert int(kind(1 << 30 | 1)) == 1 << 30 | 1, prefix
            assert isinstance(kind(1 << 30 | 1), kind)
