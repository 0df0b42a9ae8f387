"""Reading colour presets, from friends and from strangers."""

import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.envs.presets import KEYS, read_presets
from common.errors import UserError


def save_like_torch(content: Any, path: Path) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def one_preset(**changes: Any) -> dict[str, Any]:
    return {key: np.array([0.1, 0.2, 0.3]) for key in KEYS} | changes


def test_reads_what_torch_wrote(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    presets = [{key: random.uniform(0, 1, 3) for key in KEYS} for _ in range(7)]
    for written in (presets, [{key: value.astype(np.float32) for key, value in presets[0].items()}]):
        read = read_presets(save_like_torch(written, tmp_path / "color.pt"))
        assert len(read) == len(written)
        for one, other in zip(read, written, strict=True):
            assert set(one) == set(KEYS)
            for key in KEYS:
                np.testing.assert_array_equal(one[key], other[key])
                assert one[key].dtype == np.float64


def test_reads_a_plain_pickle(tmp_path: Path) -> None:
    for protocol in range(2, 5):
        (tmp_path / "color.pt").write_bytes(pickle.dumps([one_preset()], protocol))
        np.testing.assert_array_equal(read_presets(tmp_path / "color.pt")[0]["self_rgb"], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", ["color_easy", "color_hard"])
def test_reads_the_benchmarks_files(real_data: Path, name: str) -> None:
    read = read_presets(real_data / f"{name}.pt")
    expected = torch.load(real_data / f"{name}.pt", weights_only=False)
    assert len(read) == len(expected) == 100
    for one, other in zip(read, expected, strict=True):
        for key in KEYS:
            np.testing.assert_array_equal(one[key], other[key])


class Malicious:
    """Unpickles by running a command that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("place", ["instead", "inside", "as colour"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, place: str) -> None:
    trace = tmp_path / "trace"
    bad = Malicious(trace)
    content = {"instead": bad, "inside": [one_preset(), bad], "as colour": [one_preset(self_rgb=bad)]}[place]
    path = save_like_torch(content, tmp_path / "color.pt")
    torch.load(path, weights_only=False)
    assert trace.exists()  # the file is as dangerous as it is meant to be
    trace.unlink()
    with pytest.raises(UserError, match=r"color\.pt is refused: its pickle asks for \w+\.system"):
        read_presets(path)
    assert not trace.exists()


def test_codecs_encode_is_no_way_in(tmp_path: Path) -> None:
    # protocol 2: _codecs.encode("b", "rot13")
    (tmp_path / "color.pt").write_bytes(
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00bX\x05\x00\x00\x00rot13\x86R."
    )
    with pytest.raises(UserError, match="the text encoding rot13"):
        read_presets(tmp_path / "color.pt")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"self_rgb": 1},
        [{"self_rgb": np.zeros(3)}],
        [one_preset(self_rgb=np.array([0.1, 0.2]))],
        [one_preset(self_rgb=np.array([0.1, 0.2, 1.5]))],
        [one_preset(self_rgb=np.array([0.1, 0.2, np.nan]))],
        [one_preset(self_rgb=np.array([1, 2, 3]))],
        [one_preset(self_rgb=np.array([None, None, None]))],
        [one_preset(self_rgb="red")],
        ["preset"],
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match=r"color\.pt"):
        read_presets(save_like_torch(content, tmp_path / "color.pt"))


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", b"\x80\x02]", bytes(range(256))])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "color.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"color\.pt"):
        read_presets(tmp_path / "color.pt")


@pytest.mark.slow
def test_a_few_bytes_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    file = tmp_path / "color.pt"
    file.write_bytes(b"\x80\x02]r" + (2**27).to_bytes(4, "little") + b".")  # a list, kept as memo 2**27
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"color\.pt is not a colour preset file.*memo"):
            read_presets(file)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        # What is avoided:
        pickle.loads(file.read_bytes())
        assert tracemalloc.get_traced_memory()[1] > 2**30
    finally:
        tracemalloc.stop()


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"color_easy\.pt: No such file"):
        read_presets(tmp_path / "color_easy.pt")
    with (tmp_path / "big.pt").open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(UserError, match=r"big\.pt .*larger than"):
        read_presets(tmp_path / "big.pt")
