"""The benchmark's colour presets, read from their pickle without running anything that is in it."""

import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from common.errors import UserError

KEYS = ("grid_rgb1", "grid_rgb2", "self_rgb", "skybox_rgb")
MAX_BYTES = 16 * 2**20

_REMEDY = "get the benchmark's own file"

Preset = dict[str, np.ndarray]  # the four KEYS, each float64 (3,) in [0, 1]


def read_presets(path: Path) -> list[Preset]:
    """Read `color_easy.pt` or `color_hard.pt`: a list of dicts of NumPy arrays, pickled by torch.

    Raises:
        UserError: the file is missing, holds anything but containers and arrays, or is not a list of presets.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is not a colour preset file: it is larger than {MAX_BYTES} bytes")
        with path.open("rb") as file:
            content = _first_list(file)
    except OSError as error:
        raise UserError(f"cannot read colour presets {path}: {error.strerror or error}") from error
    except _Refused as error:
        raise UserError(f"{path} is refused: its pickle asks for {error}; {_REMEDY}") from error
    # A hostile pickle can raise anything, RecursionError and MemoryError included.
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a colour preset file ({error}); {_REMEDY}") from error
    try:
        presets = [{key: _colour(preset[key]) for key in KEYS} for preset in content]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} holds something other than presets ({error}); {_REMEDY}") from error
    if not presets:
        raise UserError(f"{path} holds no colour presets; {_REMEDY}")
    return presets


class _Refused(Exception):
    pass


class _DType:
    """Stands in for numpy.dtype while unpickling."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


@dataclass
class _Array:
    """Stands in for numpy.ndarray while unpickling: keeps what the file says, builds nothing."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _reconstruct(kind: Any, *arguments: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"the text encoding {encoding}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Resolves the four names a pickled array uses to harmless stand-ins, and no other name."""

    NAMES: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.NAMES:
            raise _Refused(f"{module}.{name}")
        return self.NAMES[module, name]


def _first_list(file: IO[bytes]) -> list[Any]:
    """torch's legacy format pickles a magic number, a version and machine facts before the object itself."""
    for _ in range(4):
        start = file.tell()
        _check_memory(file)
        file.seek(start)
        content = _Unpickler(file).load()
        if isinstance(content, list):
            return content
    raise ValueError("no list in it")


def _check_memory(file: IO[bytes]) -> None:
    """Walk over a pickle without building anything; ValueError if unpickling could take endless memory.

    The unpickler's memo is an array that reaches to the largest index, so a few bytes could ask for
    gigabytes. Lengths that go beyond the file are errors to `genops` itself.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise ValueError(f"entry {argument} of its memo")


def _colour(array: Any) -> np.ndarray:
    if not isinstance(array, _Array) or len(array.state) != 5:
        raise ValueError("a colour is not an array")
    _, shape, dtype, _, content = array.state
    if shape != (3,) or not isinstance(dtype, _DType) or dtype.code not in ("f4", "f8"):
        raise ValueError("a colour is not three floating-point numbers")
    if dtype.order not in ("<", ">", "="):
        raise ValueError(f"unknown byte order {dtype.order}")
    colour = np.frombuffer(content, dtype.order + dtype.code).astype(np.float64)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 1)).all():
        raise ValueError("a colour lies outside [0, 1]")
    return colour
