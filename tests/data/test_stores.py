import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.data.stores import (
    ArrayStore,
    FolderStore,
    JoinedStore,
    ObjectStore,
    SelectedStore,
    as_pixels,
    is_archive,
    open_archive,
)
from vitral.errors import DataError
from vitral.files.places import cache_dir

ARCHIVES = ["a.tar", "a.tar.gz", "a.tgz", "a.zip"]
FILES = {"cat/1.png": b"one", "cat/2.png": b"", "dog/1.png": bytes(range(256)) * 9}


def contents(store):
    return {name: store.read(number) for number, name in enumerate(store.names)}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_its_members(tmp_path, pack, name):
    store = open_archive(pack(tmp_path / name, FILES))
    assert contents(store) == FILES
    assert len({store.stamp(number) for number in range(3)}) == 1


def test_names_of_archives_are_known_by_their_ends():
    others = ["a.gz", "a.tar.xz", "a.rar", "tar", "a.png"]
    assert [is_archive(Path(name)) for name in [*ARCHIVES, "TRAIN.TAR", "b.Tar.Gz"]] == [True] * 6
    assert [is_archive(Path(name)) for name in others] == [False] * 5


def test_leading_dots_of_tar_members_are_left_out(tmp_path, pack):
    store = open_archive(pack(tmp_path / "a.tar", {"./cat/1.png": b"one"}))
    assert contents(store) == {"cat/1.png": b"one"}


def test_a_stored_zip_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("cat")
        archive.writestr("cat/1.png", b"one")
    assert contents(open_archive(tmp_path / "a.zip")) == {"cat/1.png": b"one"}


def test_hard_links_in_a_tar_give_what_they_link_to(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
        link = tarfile.TarInfo("cat/2.png")
        link.type, link.linkname = tarfile.LNKTYPE, "cat/1.png"
        archive.addfile(link)
    assert contents(open_archive(tmp_path / "a.tar")) == {"cat/1.png": b"one", "cat/2.png": b"one"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_other_links_in_a_tar_are_listed_and_say_why_they_are_not_read(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("cat/2.png")
        link.type, link.linkname = kind, "elsewhere/1.png"
        archive.addfile(link)
    store = open_archive(tmp_path / "a.tar")
    assert list(store.names) == ["cat/2.png"]
    with pytest.raises(OSError, match="link to elsewhere/1.png"):
        store.read(0)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_a_data_error_that_names_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(DataError, match=rf"{name} can't be read"):
        open_archive(tmp_path / name)


@pytest.mark.parametrize("name", ARCHIVES)
def test_half_an_archive_is_a_data_error(tmp_path, pack, name):
    noise = np.random.default_rng(0).bytes(5000)
    path = pack(tmp_path / name, {"cat/1.png": noise, "cat/2.png": noise[::-1]})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 700])
    with pytest.raises(DataError, match=name):
        open_archive(path)


def test_damage_between_the_members_of_a_tar_loses_none_silently(tmp_path, pack):
    path = pack(tmp_path / "a.tar", FILES)
    content = bytearray(path.read_bytes())
    content[1024 + 100 : 1024 + 156] = b"x" * 56  # within the second member's header
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar can't be read as a tar: .*after cat/1\.png"):
        open_archive(path)


def test_damage_inside_a_compressed_tar_is_a_data_error(tmp_path, pack):
    noise = np.random.default_rng(0).bytes(3000)
    path = pack(tmp_path / "a.tar.gz", {"cat/1.png": noise * 3})
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar\.gz can't be unpacked"):
        open_archive(path)


def test_a_damaged_member_of_a_zip_is_an_os_error(tmp_path, pack):
    path = pack(tmp_path / "a.zip", {"cat/1.png": bytes(range(256)) * 20})
    content = bytearray(path.read_bytes())
    content[39 + 10 : 39 + 60] = b"\xff" * 50
    path.write_bytes(content)
    with pytest.raises(OSError, match="a damaged member"):
        open_archive(path).read(0)


def test_an_encrypted_member_of_a_zip_is_an_os_error(tmp_path, pack):
    path = pack(tmp_path / "a.zip", {"cat/1.png": b"one"})
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    path.write_bytes(content[: directory + 8] + b"\1" + content[directory + 9 :])
    with pytest.raises(OSError, match="encrypted"):
        open_archive(path).read(0)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_in_another_compression_is_an_os_error(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/1.png", b"one" * 100)
    with pytest.raises(OSError, match="only deflate is read"):
        open_archive(tmp_path / "a.zip").read(0)


def test_a_compressed_tar_is_unpacked_once(tmp_path, pack, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE_DIR", str(tmp_path / "cache"))
    path = pack(tmp_path / "a.tar.gz", FILES)
    open_archive(path)
    (unpacked,) = (cache_dir() / "archives").iterdir()
    before = unpacked.stat().st_mtime_ns
    assert contents(open_archive(path)) == FILES
    assert unpacked.stat().st_mtime_ns == before


def test_a_changed_compressed_tar_is_unpacked_again(tmp_path, pack):
    open_archive(pack(tmp_path / "a.tar.gz", FILES))
    os.utime(pack(tmp_path / "a.tar.gz", {"cat/9.png": b"nine"}), ns=(1, 1))
    assert contents(open_archive(tmp_path / "a.tar.gz")) == {"cat/9.png": b"nine"}


def test_a_plain_tar_with_the_name_of_a_compressed_one_is_read(tmp_path, pack):
    pack(tmp_path / "a.tar", FILES).rename(tmp_path / "a.tar.gz")
    assert contents(open_archive(tmp_path / "a.tar.gz")) == FILES


def test_a_compressed_tar_with_the_name_of_a_plain_one_is_read(tmp_path, pack):
    pack(tmp_path / "a.tar.gz", FILES).rename(tmp_path / "a.tar")
    assert gzip.decompress((tmp_path / "a.tar").read_bytes())
    assert contents(open_archive(tmp_path / "a.tar")) == FILES


def test_the_stamp_of_a_file_changes_with_its_size_and_time(tmp_path, fill):
    store = FolderStore(fill(tmp_path, {"a": b"1", "b": b"22"}), ["a", "b", "none"])
    first = store.stamp(0)
    assert first != store.stamp(1)
    os.utime(tmp_path / "a", ns=(5, 5))
    assert store.stamp(0) != first
    assert store.stamp(2) is None
    with pytest.raises(FileNotFoundError):
        store.read(2)


def test_joined_stores_number_through(tmp_path, fill, pack):
    folder = FolderStore(fill(tmp_path, FILES), list(FILES))
    archive = open_archive(pack(tmp_path / "a.zip", {"cat/1.png": b"another"}))
    nothing = ArrayStore(np.zeros((0, 2, 2), np.uint8), path="none")
    store = JoinedStore([folder, nothing, archive], ["train/", "no/", "test/"])
    expected = {f"train/{name}": content for name, content in FILES.items()}
    assert contents(store) == expected | {"test/cat/1.png": b"another"}
    assert store.stamp(3) == archive.stamp(0)
    assert store.stamp(2) == folder.stamp(2)


def test_selected_files_are_renumbered(tmp_path, fill):
    store = FolderStore(fill(tmp_path, FILES), list(FILES))
    selected = SelectedStore(store, [2, 0])
    assert contents(selected) == {name: FILES[name] for name in ("dog/1.png", "cat/1.png")}
    assert selected.stamp(0) == store.stamp(2)


def test_arrays_without_channels_get_one():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    store = ArrayStore(images, path="a.npz")
    assert list(store.names) == store.names[0:2] == ["0", "1"]
    assert store.stamp(0) is None
    np.testing.assert_array_equal(store.read(1), images[1, :, :, None])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3, 4, 3, 1), np.uint8),
        np.array(3, np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(images):
    with pytest.raises(DataError, match=r"wanted \(N, H, W\) or \(N, H, W, C\)"):
        ArrayStore(images, path="a.npz")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float64])
def test_arrays_of_more_than_eight_bits_keep_their_values(dtype):
    images = (np.arange(24).reshape(2, 3, 4) * 100).astype(dtype)
    pixels = ArrayStore(images, path="a.npz").read(1)
    np.testing.assert_array_equal(pixels[:, :, 0], images[1])


def test_arrays_of_no_numbers_are_refused():
    with pytest.raises(DataError, match=r"a\.npz: images of values of type <U1"):
        ArrayStore(np.full((2, 3, 4), "a"), path="a.npz")


PIXELS = np.linspace(0, 255, 60).astype(np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        Image.fromarray(PIXELS),
        torch.tensor(PIXELS).permute(2, 0, 1),
        torch.tensor(PIXELS).permute(2, 0, 1) / 255,
        (torch.tensor(PIXELS).permute(2, 0, 1) / 255).requires_grad_(),
    ],
)
def test_every_usual_form_of_an_image_becomes_the_same_pixels(image):
    np.testing.assert_array_equal(as_pixels(image), PIXELS)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS[:, :, 0],
        Image.fromarray(PIXELS[:, :, 0]),
        torch.tensor(PIXELS[:, :, 0]),
        torch.tensor(PIXELS[None, :, :, 0]),
        (torch.tensor(PIXELS[:, :, 0]) / 255).requires_grad_(),
    ],
)
def test_grey_images_get_one_channel(image):
    np.testing.assert_array_equal(as_pixels(image), PIXELS[:, :, :1])


def test_floats_are_rounded():
    image = np.array([[0.0, 0.298, 0.302, 0.999, 1.0]])  # 75.99, 77.01 and 254.7
    assert as_pixels(image).ravel().tolist() == [0, 76, 77, 255, 255]


@pytest.mark.parametrize("image", [PIXELS > 20, Image.fromarray(PIXELS[:, :, 0] > 20)])
def test_truth_values_are_black_and_white(image):
    np.testing.assert_array_equal(as_pixels(image)[:, :, 0], (PIXELS[:, :, 0] > 20) * 255)


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "HSV"])
def test_pil_images_in_other_colours_become_rgb(picture, mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(as_pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_pil_images_keep_their_alpha(picture, mode):
    image = picture(mode=mode)
    np.testing.assert_array_equal(as_pixels(image), np.asarray(image))


def test_a_pil_image_is_turned_as_its_file_is(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encode(picture(), "PNG", exif=exif)))
    np.testing.assert_array_equal(as_pixels(image), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS * 1.0, "floats from 0 to 255: give uint8, or floats in 0..1"),
        (PIXELS / 255 - 0.5, "floats from -0.5 to"),
        (np.full((2, 2), np.nan), "floats from nan to nan"),
        (PIXELS[None], r"shape \(1, 4, 5, 3\): give \(H, W\) or"),
        (np.full((2, 2), 1j), "type complex128"),
        ("a path", r"shape \(\): give"),
        (None, r"shape \(\): give"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        as_pixels(image)


def test_whole_numbers_of_more_than_eight_bits_keep_their_values():
    deep = as_pixels(Image.fromarray(np.full((2, 3), 40_000, np.uint16)))
    assert (deep.dtype, deep.shape, int(deep[0, 0, 0])) == (np.uint16, (2, 3, 1), 40_000)
    assert as_pixels(PIXELS.astype(np.int64)).dtype == np.int32


def test_an_object_gives_the_image_of_an_example():
    store = ObjectStore([(PIXELS, 3), (PIXELS[::-1], 1)])
    assert list(store.names) == ["0", "1"]
    assert store.stamp(0) is None
    np.testing.assert_array_equal(store.read(1), PIXELS[::-1])


def test_a_stored_zip_member_with_a_flipped_bit_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("cat/1.bin", b"0123456789" * 20)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[100] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(OSError, match="its checksum is not the one in the zip"):
        open_archive(tmp_path / "a.zip").read(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pil_image_with_transparency_is_put_on_white_for_a_model_without(channels):
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert as_pixels(image, channels=channels).shape == (2, 2, channels)
    assert (as_pixels(image, channels=channels) == 255).all()
    assert as_pixels(image, channels=4).shape == (2, 2, 4)
