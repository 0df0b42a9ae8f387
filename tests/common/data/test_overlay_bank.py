import logging
import os
import struct
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomResizedCrop

from common.data import image_files
from common.data import overlay_bank as images
from common.data.image_files import image_names, image_size, natural_order, read_image
from common.data.overlay_bank import ImageSequence, OverlayBank
from common.data.procedural_images import coloured_noise, dead_leaves, procedural_images
from common.errors import UserError

CPU = torch.device("cpu")
BLOCK = 32  # views in a block here
needs_photographs = pytest.mark.skipif(
    "SMG_OVERLAY" not in os.environ, reason="needs photographs: set SMG_OVERLAY to a folder of them"
)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, content = cv2.imencode(path.suffix, pixels[:, :, ::-1])
    assert encoded
    path.write_bytes(content.tobytes())


def plain(level: int, height: int = 20, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and images as small as their logic allows."""
    monkeypatch.setattr(images, "BLOCK", BLOCK)
    monkeypatch.setattr(images, "RESOLUTION", 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty plain images, each of a level of its own, in a tree with awkward names."""
    for number in range(30):
        write_image(
            tmp_path / ("even ones" if number % 2 == 0 else "ødd") / f"{number}.png", plain(8 * number)
        )
    return tmp_path


def bank(folder: Path | None, capacity: int = 30, seed: int = 0, size: int = 8) -> OverlayBank:
    return OverlayBank(folder, size=size, capacity=capacity, seed=seed, device=CPU)


def levels(pictures: torch.Tensor) -> list[int]:
    """The number of the plain image that each picture shows."""
    flat = pictures.flatten(1)
    assert (flat == flat[:, :1]).all()
    return (flat[:, 0] // 8).tolist()


# Files


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_size_from_the_header_and_the_middle_square(suffix: str, tmp_path: Path):
    pixels = np.concatenate([plain(0, 60, 40), plain(200, 60, 60), plain(0, 60, 40)], axis=1)
    write_image(tmp_path / f"wide{suffix}", pixels)
    assert image_size((tmp_path / f"wide{suffix}").read_bytes()) == (140, 60)
    square = read_image(tmp_path / f"wide{suffix}", 12)
    assert square.shape == (3, 12, 12)
    assert np.abs(square.astype(int) - 200).max() <= 3  # JPEG and WebP are not exact


def test_size_of_the_other_webp_kinds(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 77, 3), dtype=np.uint8)
    _, lossless = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert lossless.tobytes()[12:16] == b"VP8L"
    assert image_size(lossless.tobytes()) == (77, 33)
    # The extended header: flags, then width and height less one in three bytes each.
    extended = b"RIFF" + b"\0" * 4 + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4
    extended += (69_999).to_bytes(3, "little") + (299).to_bytes(3, "little")
    assert image_size(extended) == (70_000, 300)


def test_jpeg_headers_with_tables_first_and_progressive(tmp_path: Path):
    _, progressive = cv2.imencode(".jpg", plain(9, 31, 45), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert image_size(progressive.tobytes()) == (45, 31)
    huffman_table = (
        b"\xff\xc4" + struct.pack(">H", 2 + 2) + b"\xff\xc0"
    )  # its content looks like a frame's start
    assert image_size(b"\xff\xd8\xff" + huffman_table + progressive.tobytes()[2:]) == (45, 31)


def test_shrinking_averages_areas(tmp_path: Path):
    pixels = np.random.default_rng(1).integers(0, 256, (15, 15, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", pixels)
    # 15 to 10 pixels: an output pixel covers one and a half inputs each way, so three of their halves.
    halves = pixels.repeat(2, axis=0).repeat(2, axis=1)
    expected = halves.reshape(10, 3, 10, 3, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(read_image(tmp_path / "a.png", 10) - expected).max() <= 0.51
    assert np.array_equal(read_image(tmp_path / "a.png", 15), pixels.transpose(2, 0, 1))


def test_large_images_are_decoded_reduced_to_the_same_picture(tmp_path: Path):
    smooth = cv2.GaussianBlur(
        np.random.default_rng(1).integers(0, 256, (320, 320, 3), dtype=np.uint8), (0, 0), 9
    )
    write_image(tmp_path / "a.jpg", smooth)
    expected = smooth.reshape(32, 10, 32, 10, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(read_image(tmp_path / "a.jpg", 32) - expected).max() < 3


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bits"])
def test_other_pixel_formats_become_rgb(kind: str, tmp_path: Path):
    path = tmp_path / "a.png"
    if kind == "grey":
        content = np.full((20, 20), 77, dtype=np.uint8)
    elif kind == "alpha":
        content = np.full((20, 20, 4), 77, dtype=np.uint8)
    else:
        content = np.full((20, 20, 3), 77 * 257, dtype=np.uint16)
    path.write_bytes(cv2.imencode(".png", content)[1].tobytes())
    assert np.array_equal(read_image(path, 10), np.full((3, 10, 10), 77))


def test_colours_are_red_green_blue(tmp_path: Path):
    pixels = plain(0)
    pixels[:, :, 0], pixels[:, :, 2] = 250, 30
    write_image(tmp_path / "a.png", pixels)
    assert read_image(tmp_path / "a.png", 5)[:, 0, 0].tolist() == [250, 0, 30]


def damaged(name: str) -> bytes:
    noise = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    png, jpeg = (cv2.imencode(suffix, noise)[1].tobytes() for suffix in (".png", ".jpg"))
    return {
        "empty": b"",
        "text": b"not an image",
        "half a PNG": png[: len(png) // 2],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "only a header": png[:20],
        "a JPEG's first bytes": b"\xff\xd8\xff",
        "a PNG of 200,000 x 200,000 pixels": png[:16] + struct.pack(">II", 200_000, 200_000) + png[24:],
        "a PNG without pixels": png[:16] + struct.pack(">II", 0, 0) + png[24:],
    }[name]


DAMAGES = [
    "empty",
    "text",
    "half a PNG",
    "half a JPEG",
    "only a header",
    "a JPEG's first bytes",
    "a PNG of 200,000 x 200,000 pixels",
    "a PNG without pixels",
]


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name: str, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(damaged(name))
    with pytest.raises(ValueError, match="it "):
        read_image(tmp_path / "a.png", 16)


def test_gigapixels_and_gigabytes_are_refused_undecoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def never(*arguments: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    (tmp_path / "a.png").write_bytes(damaged("a PNG of 200,000 x 200,000 pixels"))
    with pytest.raises(ValueError, match="200000x200000 pixels"):
        read_image(tmp_path / "a.png", 16)
    monkeypatch.setattr(image_files, "MAX_BYTES", 10)
    write_image(tmp_path / "b.png", plain(1))
    with pytest.raises(ValueError, match="bytes"):
        read_image(tmp_path / "b.png", 16)


def test_special_files_are_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "endless.jpg")
    with pytest.raises(ValueError, match="regular"):
        read_image(tmp_path / "endless.jpg", 16)


def test_any_bytes_give_a_size_or_a_value_error():
    rng = np.random.default_rng(3)
    starts = [
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0WEBPVP8L",
        b"\xff\xd8\xff",
        b"",
    ]
    for start in starts:
        for _ in range(300):
            content = start + rng.integers(0, 256, rng.integers(0, 60), dtype=np.uint8).tobytes()
            try:
                width, height = image_size(content)
            except ValueError:
                continue
            assert width >= 0 and height >= 0


def test_trees_are_searched_in_natural_order_and_links_followed_once(tmp_path: Path):
    for name in ("b/10.jpg", "b/9.JPEG", "a 2.png", "a 10.webp", "ünï/x.bmp", "notes.txt", "b/c/1.jpg.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    found = sorted(image_names(tmp_path), key=natural_order)
    assert found == ["a 2.png", "a 10.webp", "b/9.JPEG", "b/10.jpg", "ünï/x.bmp"]


# Sequence and bank


def test_sequence_is_one_random_order_after_another(folder: Path):
    sequence = ImageSequence(folder, seed=0)
    shown = levels(torch.from_numpy(sequence.read(0, 90)))
    rounds = [shown[start : start + 30] for start in (0, 30, 60)]
    assert all(sorted(order) == list(range(30)) for order in rounds)
    assert rounds[0] != rounds[1] != rounds[2]
    assert levels(torch.from_numpy(ImageSequence(folder, seed=0).read(45, 30))) == shown[45:75]
    assert levels(torch.from_numpy(ImageSequence(folder, seed=1).read(0, 30))) != rounds[0]


def test_small_folder_is_held_whole_and_every_image_shown(folder: Path):
    overlays = bank(folder, capacity=100)
    assert sorted(levels(overlays._images)) == list(range(30))
    shown = levels(overlays.draw(1200))
    counts = np.bincount(shown, minlength=30)
    expected = 1200 / 30
    assert ((counts - expected) ** 2 / expected).sum() < 58.3  # 99.9% quantile for 29 degrees of freedom


def test_views_are_kornias_crops_of_the_bank(tmp_path: Path):
    rng = np.random.default_rng(4)
    for number in range(5):
        write_image(tmp_path / f"{number}.png", rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    overlays = bank(tmp_path, size=21)
    views = overlays.draw(BLOCK)
    assert views.shape == (BLOCK, 3, 21, 21) and views.dtype == torch.uint8
    # The same steps by Kornia's ordinary interface, image by image in [0, 1].
    crop = RandomResizedCrop(
        (21, 21), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), p=1.0, cropping_mode="resample"
    )
    flip = RandomHorizontalFlip(p=0.5)
    torch.manual_seed(images._seed(0, "views", 0))
    chosen = torch.randint(5, (BLOCK,))
    expected = flip(crop(overlays._images[chosen].double() / 255))
    assert (views - 255 * expected).abs().max() < 0.51


def test_views_depend_on_seed_and_position_only(folder: Path):
    first, second = bank(folder), bank(folder)
    torch.manual_seed(1)
    left = first.draw(90)
    torch.manual_seed(2)
    right = torch.cat([second.draw(count) for count in (1, 31, 32, 10, 16)])
    assert torch.equal(left, right)
    assert not torch.equal(bank(folder, seed=1).draw(90), left)


def test_drawing_leaves_the_global_generator_alone(folder: Path):
    overlays = bank(folder)
    state = torch.get_rng_state()
    overlays.draw(BLOCK + 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("drawn", [0, 10, BLOCK, 3 * BLOCK + 7, 40 * BLOCK])
@pytest.mark.parametrize("capacity", [12, 30])
def test_resumes_bit_exactly(folder: Path, drawn: int, capacity: int):
    overlays = bank(folder, capacity)
    while drawn:
        drawn -= len(overlays.draw(min(drawn, BLOCK)))
    resumed = bank(folder, capacity)
    resumed.draw(5)
    resumed.load_state_dict(overlays.state_dict())
    assert torch.equal(resumed.draw(2 * BLOCK), overlays.draw(2 * BLOCK))


def test_larger_folder_slides_through_the_bank(folder: Path):
    overlays = bank(folder, capacity=12)
    sequence = levels(torch.from_numpy(ImageSequence(folder, seed=0).read(0, 200)))
    for block in range(20):
        shown = set(levels(overlays.draw(BLOCK)))
        assert sorted(levels(overlays._images)) == sorted(sequence[8 * block : 8 * block + 12])
        assert shown <= set(sequence[8 * block : 8 * block + 12])


def test_a_slow_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    expected = bank(folder, capacity=12).draw(3 * BLOCK)
    overlays = bank(folder, capacity=12)  # reads ahead for block 1 already
    asked, opened = threading.Event(), threading.Event()
    read = ImageSequence.read

    def read_when_opened(self: ImageSequence, first: int, count: int) -> np.ndarray:
        asked.set()
        assert opened.wait(timeout=60)
        return read(self, first, count)

    monkeypatch.setattr(ImageSequence, "read", read_when_opened)
    drawn: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: drawn.append(overlays.draw(3 * BLOCK)))
    thread.start()
    assert asked.wait(timeout=60)  # for block 2, whose images the disk now keeps back
    assert drawn == []
    opened.set()
    thread.join(timeout=60)
    assert torch.equal(drawn[0], expected)


@pytest.mark.parametrize("name", DAMAGES)
def test_unusable_images_are_named_once_and_the_next_stand_in(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
):
    sequence = levels(torch.from_numpy(ImageSequence(folder, seed=0).read(0, 60)))
    bad = sequence[3]
    path = next(folder.rglob(f"{bad}.png"))
    path.write_bytes(damaged(name))
    with caplog.at_level(logging.WARNING):
        overlays = bank(folder, capacity=12)
        overlays.draw(12 * BLOCK)
    warnings = [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
    assert len(warnings) == 1
    repaired = levels(torch.from_numpy(ImageSequence(folder, seed=0).read(0, 60)))
    later = {place: next(level for level in sequence[place:] if level != bad) for place in range(59)}
    assert repaired[:59] == [later[place] for place in range(59)]
    resumed = bank(folder, capacity=12)
    resumed.load_state_dict(overlays.state_dict())
    assert torch.equal(resumed.draw(BLOCK), overlays.draw(BLOCK))


def test_folders_that_do_not_serve_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"missing does not exist; set data\.overlay"):
        bank(tmp_path / "missing")
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match=r"holds no images \(\.jpg"):
        bank(tmp_path)
    (tmp_path / "readme.txt").rename(tmp_path / "file.jpg")
    with pytest.raises(UserError, match="does not exist"):
        bank(tmp_path / "file.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        bank(tmp_path)


def test_one_good_image_among_bad_ones_is_always_found(tmp_path: Path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    write_image(tmp_path / "4.png", plain(8))
    sequence = ImageSequence(tmp_path, seed=0)
    assert levels(torch.from_numpy(sequence.read(0, 100))) == [1] * 100


def test_description_tells_folders_apart(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    described = bank(folder).describe()
    assert (described["source"], described["images"]) == (folder.name, 30)
    assert bank(folder).source == folder.name
    next(folder.rglob("3.png")).rename(folder / "3b.png")
    assert bank(folder).describe()["sha256"] != described["sha256"]


# Procedural images


def test_without_a_folder_the_bank_is_procedural():
    overlays = bank(None, capacity=6)
    views = overlays.draw(BLOCK)
    assert overlays.source == "procedural"
    assert overlays.describe()["images"] == 6
    assert overlays.describe() == bank(None, capacity=6).describe()
    assert torch.equal(bank(None, capacity=6).draw(BLOCK), views)
    assert overlays.describe()["sha256"] != bank(None, capacity=6, seed=1).describe()["sha256"]


def spectral_slope(grey: np.ndarray) -> float:
    """The power of frequency with which the amplitude spectrum falls."""
    size = len(grey)
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    radius = size * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    radii = np.arange(2, size // 2 - 8)
    rings = [power[(radius >= r - 0.5) & (radius < r + 0.5)].mean() for r in radii]
    return float(np.polyfit(np.log(radii), np.log(rings), 1)[0] / 2)


@pytest.mark.parametrize("paint", [dead_leaves, coloured_noise])
def test_procedural_images_have_the_spectrum_of_photographs(paint):
    painted = [paint(128, np.random.default_rng(seed)) for seed in range(12)]
    slopes = [spectral_slope(image.mean(-1)) for image in painted]
    assert -1.4 < np.mean(slopes) < -0.8  # photographs: about -1.2
    contrasts = [image.mean(-1).std() for image in painted]
    assert 20 < np.mean(contrasts) < 70  # on 0-255; photographs: about 55
    assert all(image.dtype == np.uint8 and image.shape == (128, 128, 3) for image in painted)


def test_procedural_images_follow_from_the_seed():
    painted = procedural_images(6, 32, seed=3)
    assert np.array_equal(painted[:4], procedural_images(4, 32, seed=3))
    assert len({image.tobytes() for image in painted}) == 6
    assert not np.array_equal(painted, procedural_images(6, 32, seed=4))


@needs_photographs
def test_photographs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "RESOLUTION", 128)
    overlays = OverlayBank(Path(os.environ["SMG_OVERLAY"]), size=84, capacity=64, seed=0, device=CPU)
    views = overlays.draw(100).float()
    assert 60 < views.mean() < 180  # neither black nor white
    assert views.flatten(1).std(1).median() > 20  # and they show something
    slopes = [spectral_slope(image.float().mean(0).numpy()) for image in overlays._images]
    assert -1.6 < np.mean(slopes) < -0.9
