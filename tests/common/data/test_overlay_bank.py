import logging
import os
import struct
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomResizedCrop
from PIL import Image, ImageFile

from common.data import image_files
from common.data import overlay_bank as images
from common.data.image_files import image_names, natural_order, read_image
from common.data.overlay_bank import ImageSequence, OverlayBank
from common.data.procedural_images import coloured_noise, dead_leaves, paint_leaf, procedural_images
from common.errors import UserError

CPU = torch.device("cpu")
BLOCK = 32  # views in a block here
needs_photographs = pytest.mark.skipif(
    "SMG_OVERLAY" not in os.environ, reason="needs photographs: set SMG_OVERLAY to a folder of them"
)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


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


def area_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """Means over side x side areas of a square (S, S, C), by writing each pixel side times each way."""
    size = len(pixels)
    fine = pixels.astype(float).repeat(side, axis=0).repeat(side, axis=1)
    return fine.reshape(side, size, side, size, -1).mean((1, 3))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
@pytest.mark.parametrize(("size", "side"), [(15, 10), (40, 10), (37, 16), (17, 16), (16, 16)])
def test_shrinking_takes_the_means_of_areas(suffix: str, size: int, side: int, tmp_path: Path):
    pixels = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)
    read = read_image(tmp_path / f"a{suffix}", side).transpose(1, 2, 0)
    assert np.abs(read - area_means(pixels, side)).max() <= 0.5


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".gif", ".jpg", ".jpeg"])
def test_fine_stripes_become_grey_whatever_the_format(suffix: str, tmp_path: Path):
    stripes = np.zeros((512, 512, 3), dtype=np.uint8)
    stripes[:, ::4] = 255
    Image.fromarray(stripes).save(tmp_path / f"a{suffix}", quality=95)
    # 255 / 4 is 63.75: at a quarter of the size a pixel is four columns. At five eighths it is 1.6 columns:
    # of five pixels in a row the first sees a white one whole, the third 0.8 of one and the fourth the rest.
    assert (read_image(tmp_path / f"a{suffix}", 128) == 64).all()
    uneven = read_image(tmp_path / f"a{suffix}", 320)[:, :, :10]
    loss = 0.5 if suffix in (".png", ".bmp", ".gif") else 3
    assert np.abs(uneven - 255 / 1.6 * np.array(2 * [1, 0, 0.8, 0.2, 0])).max() <= loss


@pytest.mark.parametrize(("size", "side"), [(320, 32), (321, 32), (1280, 32)])
def test_a_jpeg_is_shrunk_as_its_pixels_are(size: int, side: int, tmp_path: Path):
    pixels = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = np.asarray(image)
    # Each area's overlap with each pixel, along one axis.
    begin, pixel = np.arange(side)[:, None] * size / side, np.arange(size)
    overlap = np.minimum(begin + size / side, pixel + 1) - np.maximum(begin, pixel)
    share = np.maximum(overlap, 0) * side / size
    expected = np.einsum("ya,abc,xb->cyx", share, whole, share, optimize=True)
    assert np.abs(read_image(tmp_path / "a.jpg", side) - expected).max() <= 0.53


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_the_middle_square_is_taken(suffix: str, tmp_path: Path):
    pixels = np.concatenate([plain(0, 60, 40), plain(200, 60, 60), plain(0, 60, 40)], axis=1)
    for name, image in (("wide", pixels), ("high", pixels.swapaxes(0, 1))):
        write_image(tmp_path / f"{name}{suffix}", image)
        square = read_image(tmp_path / f"{name}{suffix}", 12)
        assert square.shape == (3, 12, 12)
        assert np.abs(square.astype(int) - 200).max() <= 3  # JPEG and WebP are not exact


def test_smaller_images_are_enlarged_bilinearly(tmp_path: Path):
    write_image(tmp_path / "a.png", np.concatenate([plain(0, 2, 1), plain(200, 2, 1)], axis=1))
    # Pixel centres at 1/4, 3/4, 5/4, 7/4 of two pixels with centres at 1/2 and 3/2.
    assert read_image(tmp_path / "a.png", 4)[0].tolist() == [[0, 50, 150, 200]] * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int, tmp_path: Path):
    upright = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    # EXIF's meaning of the first row and column, undone: what the camera stored.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", 16), upright.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGBA", "P", "P with transparency", "CMYK", "I;16"])
def test_other_pixel_formats_become_rgb(mode: str, tmp_path: Path):
    rng = np.random.default_rng(6)
    grey = rng.integers(0, 256, (20, 20), dtype=np.uint8)
    colours = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    path, three = tmp_path / "a.png", (1, 1, 3)
    options: dict[str, Any] = {}
    if mode == "I;16":
        deep = rng.integers(0, 65536, (20, 20), dtype=np.uint16)
        image, expected = Image.fromarray(deep), np.tile((deep / 257)[..., None], three)
    elif mode in ("L", "LA"):
        image, expected = Image.fromarray(grey), np.tile(grey[..., None], three)
        if mode == "LA":
            image.putalpha(Image.fromarray(colours[..., 3]))
    elif mode == "1":
        image, expected = Image.fromarray(grey > 99), np.tile(255 * (grey > 99)[..., None], three)
    elif mode == "RGBA":
        image, expected = Image.fromarray(colours), colours[..., :3]
    elif mode == "CMYK":
        path = tmp_path / "a.jpg"
        image, options = Image.new("CMYK", (20, 20), (0, 51, 102, 51)), {"quality": 100}
        expected = np.tile(np.array([204, 163.2, 122.4]), (20, 20, 1))  # (255 - ink) (255 - black) / 255
    else:
        palette = rng.integers(0, 256, (7, 3), dtype=np.uint8)
        image, expected = Image.fromarray(grey % 7), palette[grey % 7]
        image.putpalette(palette.tobytes())
        options = {} if mode == "P" else {"transparency": bytes(range(7))}
    image.save(path, **options)
    read = read_image(path, 10).transpose(1, 2, 0)
    tolerance = {"I;16": 1, "CMYK": 2}.get(mode, 0.5)
    assert np.abs(read - area_means(expected, 10)).max() <= tolerance


def test_colours_in_16_bits_keep_8(tmp_path: Path):
    pixels = np.random.default_rng(7).integers(0, 65536, (20, 20, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each after the number of its filter, none
    header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    read = read_image(tmp_path / "a.png", 10).transpose(1, 2, 0)
    assert np.abs(read - area_means(pixels / 257, 10)).max() <= 1.5


def test_an_animation_shows_its_first_picture(tmp_path: Path):
    pictures = [Image.fromarray(plain(level)) for level in (40, 80, 120)]
    for suffix in (".gif", ".webp", ".png"):
        path = tmp_path / f"a{suffix}"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], lossless=True)
        assert (read_image(path, 5) == 40).all()


def test_colours_are_red_green_blue(tmp_path: Path):
    pixels = plain(0)
    pixels[:, :, 0], pixels[:, :, 2] = 250, 30
    write_image(tmp_path / "a.png", pixels)
    assert read_image(tmp_path / "a.png", 5)[:, 0, 0].tolist() == [250, 0, 30]


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def damaged(name: str) -> bytes:
    noise = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    png = encoded(noise, "PNG")
    huge, none = (
        png[:16] + content + struct.pack(">I", zlib.crc32(b"IHDR" + content)) + png[33:]
        for content in (struct.pack(">II", side, side) + png[24:29] for side in (200_000, 0))
    )
    halves = {f"half a {kind}": encoded(noise, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}
    return {
        "empty": b"",
        "text": b"not an image",
        "only a header": png[:20],
        "a JPEG's first bytes": b"\xff\xd8\xff",
        "a wrong checksum": png[:60] + bytes([png[60] ^ 1]) + png[61:],
        "a PNG of 200,000 x 200,000 pixels": huge,
        "a PNG without pixels": none,
        "another format": encoded(noise, "PPM"),  # PostScript would be one, which is a program
        **{half: content[: len(content) // 2] for half, content in halves.items()},
    }[name]


DAMAGES = [
    "empty",
    "text",
    "half a PNG",
    "half a JPEG",
    "half a WEBP",
    "half a BMP",
    "half a GIF",
    "only a header",
    "a JPEG's first bytes",
    "a wrong checksum",
    "a PNG of 200,000 x 200,000 pixels",
    "a PNG without pixels",
    "another format",
]


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name: str, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(damaged(name))
    with pytest.raises(ValueError, match="it "):
        read_image(tmp_path / "a.png", 16)


def test_gigapixels_and_gigabytes_are_refused_undecoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def never(*arguments: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    (tmp_path / "a.png").write_bytes(damaged("a PNG of 200,000 x 200,000 pixels"))
    with pytest.raises(ValueError, match="40000000000 pixels"):
        read_image(tmp_path / "a.png", 16)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 399)
    write_image(tmp_path / "b.png", plain(1))
    with pytest.raises(ValueError, match="20x20 pixels"):
        read_image(tmp_path / "b.png", 16)
    monkeypatch.setattr(image_files, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="bytes"):
        read_image(tmp_path / "b.png", 16)


def test_special_files_are_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "endless.jpg")
    with pytest.raises(ValueError, match="regular"):
        read_image(tmp_path / "endless.jpg", 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_any_bytes_give_an_image_or_a_value_error(kind: str, tmp_path: Path):
    rng = np.random.default_rng(3)
    whole = encoded(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8), kind)
    outcomes = set()
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            content[place] = rng.integers(256)
        (tmp_path / "a").write_bytes(content[: rng.integers(len(whole) // 2, 2 * len(whole))])
        with warnings.catch_warnings():  # a truncated EXIF or a large size may be warned about
            warnings.simplefilter("ignore")
            try:
                outcomes.add(read_image(tmp_path / "a", 8).shape)
            except ValueError:
                outcomes.add(None)
    assert outcomes == {(3, 8, 8), None}


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


def test_leaves_cover_what_geometry_says():
    blank = np.zeros((40, 40, 3), dtype=np.float32)
    # A box 9 long and 5 broad around the centre of pixel (20, 10), along x, then turned by a right angle.
    for angle, rows, columns in ((0, slice(8, 13), slice(16, 25)), (np.pi / 2, slice(6, 15), slice(18, 23))):
        pixels = blank.copy()
        colour = np.array([3, 5, 7])
        paint_leaf(pixels, np.array([20.0, 10.0]), np.array([4.5, 2.5]), angle, colour, disc=False)
        assert (pixels[rows, columns] == colour).all()
        assert (pixels != 0).sum() == 9 * 5 * 3
    # A turned ellipse has its area, and its centre of mass is its centre.
    pixels = blank.copy()
    paint_leaf(pixels, np.array([19.0, 21.0]), np.array([15.0, 8.0]), 0.5, np.ones(3), disc=True)
    rows, columns = np.nonzero(pixels[..., 0])
    assert len(rows) == pytest.approx(np.pi * 15 * 8, rel=0.02)
    assert (columns.mean(), rows.mean()) == pytest.approx((19, 21), abs=0.1)
    # Its long axis goes down to the right: the angle is clockwise as seen.
    assert np.polyfit(columns - 19, rows - 21, 1)[0] > 0.2
    untouched = blank.copy()
    paint_leaf(untouched, np.array([-30.0, 90.0]), np.array([9.0, 9.0]), 0.3, np.ones(3), disc=True)
    assert not untouched.any()


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
