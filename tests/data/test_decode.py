import csv
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vitral.data import decode, jpeg
from vitral.data.decode import (
    MODE_BY_CHANNELS,
    UnreadableImageError,
    UnsupportedImageError,
    decode_image,
    read_header,
)

# Height and width as shown, after any turn.
DECODED = {
    "pillow/pil_sample_cmyk.jpg": (100, 100),
    "pillow/pil_sample_rgb.jpg": (100, 100),
    "pillow/hopper.jpg": (128, 128),
    "pillow/hopper_gray.jpg": (128, 128),
    "pillow/hopper_orientation_2.jpg": (128, 128),
    "pillow/hopper_orientation_3.jpg": (128, 128),
    "pillow/hopper_orientation_4.jpg": (128, 128),
    "pillow/hopper_orientation_5.jpg": (128, 128),
    "pillow/hopper_orientation_6.jpg": (128, 128),
    "pillow/hopper_orientation_7.jpg": (128, 128),
    "pillow/hopper_orientation_8.jpg": (128, 128),
    "pillow/hopper_orientation_5.webp": (128, 128),
    "pillow/hopper_orientation_6.webp": (128, 128),
    "pillow/hopper_bad_exif.jpg": (500, 500),
    "pillow/hopper_16bit_qtables.jpg": (128, 128),
    "pillow/invalid-exif.jpg": (200, 200),
    "pillow/invalid-exif-without-x-resolution.jpg": (200, 300),
    "pillow/broken_exif_dpi.jpg": (100, 100),
    "pillow/empty_gps_ifd.jpg": (10, 10),
    "pillow/exif_typeerror.jpg": (531, 800),
    "pillow/exif_gps.jpg": (8, 8),
    "pillow/junk_jpeg_header.jpg": (768, 1024),
    "pillow/jpeg_ff00_header.jpg": (225, 300),
    "pillow/truncated_app14.jpg": (100, 100),
    "pillow/hopper_idat_after_image_end.png": (128, 128),
    "pillow/padded_idat.png": (10, 256),
    "pillow/exif_imagemagick_orientation.png": (512, 512),
    "pillow/1_trns.png": (64, 64),
    "pillow/l_trns.png": (64, 64),
    "pillow/rgb_trns.png": (64, 64),
    "pillow/p_trns_single.png": (64, 64),
    "pillow/tRNS_null_1x1.png": (1, 1),
    "pillow/pil123p.png": (150, 162),
    "pillow/pil123rgba.png": (150, 162),
    "pillow/p_16.png": (128, 128),
    "pillow/transparent.png": (150, 200),
    "pillow/transparent.webp": (150, 200),
    "pillow/hopper.webp": (128, 128),
    "pillow/flower.webp": (360, 480),
    "pillow/hopper.bmp": (128, 128),
    "pillow/bmp/g/pal8.bmp": (64, 127),
    "pillow/multiple_exif.jpg": (1, 1),
    "pillow/photoshop-200dpi-broken.jpg": (200, 200),
    "pillow/app13-multiple.jpg": (160, 256),
    "pillow/icc_profile_big.jpg": (250, 425),
    "pillow/icc-after-SOF.jpg": (10, 10),
    "pillow/orientation_rectangle.jpg": (2, 1),
    "pillow/frame_size.mpo": (70, 56),
    "pillow/tiny.png": (4, 4),
    "pillow/jfif_unit_cm.jpg": (1, 1),
    "imageio/rommel.jpg": (3072, 2304),
}
DECODED |= {
    "pillow/transparent.gif": (150, 200),
    "pillow/dispose_bgnd.gif": (100, 100),
    "pillow/dispose_prev.gif": (100, 100),
    "pillow/missing_background.gif": (32, 32),
    "pillow/no_palette.gif": (1, 1),
    "pillow/decompression_bomb_extents.gif": (100, 100),
    "pillow/hopper.gif": (128, 128),
    "imageio/newtonscradle.gif": (150, 200),
    "pillow/apng/mode_palette_alpha.png": (64, 128),
    "pillow/apng/mode_grayscale_alpha.png": (64, 128),
    "pillow/apng/blend_op_over.png": (64, 128),
    "pillow/apng/chunk_no_fdat.png": (64, 128),
    "pillow/iss634.webp": (245, 245),
    "pillow/hopper.tif": (128, 128),
    "pillow/hopper_lzw.tif": (128, 128),
    "pillow/hopper_float_dpi_2.tif": (128, 128),
    "pillow/tiff_strip_cmyk_jpeg.tif": (100, 100),
    "pillow/avif/hopper.avif": (128, 128),
    "pillow/avif/rot1mir0.avif": (427, 640),
}
# Lowest and highest value of those of more than eight bits.
DEEP = {
    "pillow/i_trns.png": (0, 65535),
    "pillow/apng/mode_16bit.png": (0, 65280),
    "pillow/16bit.deflate.tif": (291, 694),
    "pillow/16bit.cropped.tif": (291, 694),
    "pillow/tiff_16bit_RGB.tiff": (0, 39661),
}
UNSUPPORTED = {
    "pillow/hopper.Lab.tif": "colours in CIELAB are not read yet",
    "pillow/lab.tif": "colours in CIELAB are not read yet",
}
UNREADABLE = {
    "pillow/zero_width.gif": "a damaged GIF header",
    "pillow/decompression_bomb.gif": "exceeds limit",
    "pillow/truncated_jpeg.jpg": "truncated",
    "pillow/truncated_image.png": "truncated",
    "pillow/truncated_end_chunk.png": "Truncated",
    "pillow/broken.png": "a damaged PNG header",
    "pillow/broken_data_stream.png": "unrecognized data stream",
    "pillow/unknown_compression_method.png": "a damaged PNG header",
    "pillow/apng/syntax_num_frames_zero.png": "cannot load this image",
    "pillow/decompression_bomb.ico": "not an image",
    "pillow/png_decompression_dos.png": "too large",
    "pillow/bmp/b/badwidth.bmp": "exceeds limit",
    "pillow/bmp/b/shortfile.bmp": "truncated",
    "pillow/bmp/b/reallybig.bmp": "exceeds limit",
    "pillow/hopper_1bit.pbm": "not an image",
    "pillow/16_bit_binary.pgm": "not an image",
    "pillow/negative_size.ppm": "not an image",
    "pillow/ultrahdr.jpg": "truncated",
    "pillow/hopper_webp_bits.ppm": "not an image",
    "pillow/la.tga": "not an image",
}

# What EXIF's orientations ask of the stored rows and columns (CIPA DC-008, 4.6.5.1.2).
ORIENTATIONS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def shown_by_pillow(content, *, channels):
    """The first frame turned, on white where the form has no alpha: (H, W, channels)."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    image = image.convert("RGBA") if image.has_transparency_data else image
    if image.mode == "RGBA" and channels in (1, 3):
        background = Image.new("RGBA", image.size, "white")
        background.alpha_composite(image)
        image = background.convert("RGB")
    image = image.convert("RGB") if image.mode == "P" else image
    pixels = np.asarray(image.convert(MODE_BY_CHANNELS[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def png(width, height, *, depth, colour, rows):
    """A PNG file made by hand."""

    def chunk(kind, body):
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(params=["libjpeg-turbo", "Pillow"])
def any_jpeg_decoder(request, monkeypatch):
    """Both ways to decode a JPEG; the second is taken where the first has no wheel."""
    stand_in = {"libjpeg-turbo": jpeg.simplejpeg, "Pillow": None}[request.param]
    monkeypatch.setattr(jpeg, "simplejpeg", stand_in)


def test_every_stress_image_is_in_the_tables_with_the_size_of_the_manifest(shared):
    with (shared / "data/stress/manifest.tsv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert set(rows) == DECODED.keys() | DEEP.keys() | UNSUPPORTED.keys() | UNREADABLE.keys()
    stored = {name: (int(rows[name]["height"]), int(rows[name]["width"])) for name in DECODED}
    on_its_side = {name for name in DECODED if rows[name]["orientation"] in ("5", "6", "7", "8")}
    oriented = {name: stored[name][::-1] for name in on_its_side}
    assert stored | oriented == DECODED
    assert {rows[name]["result"] for name in DECODED} == {"decodes"}


@pytest.mark.parametrize("name", DECODED)
@pytest.mark.usefixtures("any_jpeg_decoder")
def test_a_stress_image_decodes_to_what_pillow_shows(stress, name):
    pixels = decode_image(stress[name])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*DECODED[name], 3)
    np.testing.assert_array_equal(pixels, shown_by_pillow(stress[name], channels=3))


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_stress_image_keeps_its_values(stress, name):
    pixels = decode_image(stress[name])
    assert pixels.dtype == np.uint16
    assert (pixels.min(), pixels.max()) == DEEP[name]


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_stress_image_of_an_unread_kind_is_refused(stress, name):
    with pytest.raises(UnsupportedImageError, match=UNSUPPORTED[name]):
        decode_image(stress[name])
    with pytest.raises(UnsupportedImageError, match=UNSUPPORTED[name]):
        read_header(stress[name])


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.usefixtures("any_jpeg_decoder")
def test_a_damaged_stress_image_is_unreadable(stress, name):
    with pytest.raises(UnreadableImageError, match=UNREADABLE[name]):
        decode_image(stress[name])


@pytest.mark.parametrize("channels", MODE_BY_CHANNELS)
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 2}),
        ("JPEG", "CMYK", {}),
        ("PNG", "1", {}),
        ("PNG", "L", {}),
        ("PNG", "L", {"transparency": 17}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "P", {"transparency": bytes(range(0, 250, 10))}),
        ("PNG", "RGB", {}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
        ("PNG", "RGBA", {}),
        ("WEBP", "RGB", {"quality": 60}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "1", {}),
        ("BMP", "L", {}),
        ("BMP", "P", {}),
        ("BMP", "RGB", {}),
        ("BMP", "RGBA", {}),
    ],
)
@pytest.mark.usefixtures("any_jpeg_decoder")
def test_every_kind_and_mode_decodes_as_pillow_does(picture, encode, kind, mode, options, channels):
    content = encode(picture(3, size=(37, 21), mode=mode), kind, **options)
    pixels = decode_image(content, channels=channels)
    assert pixels.shape == (37, 21, channels)
    np.testing.assert_array_equal(pixels, shown_by_pillow(content, channels=channels))


def test_alpha_is_put_on_white(encode):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = [0, 128, 255]
    pixels[0, :, 0] = 200
    decoded = decode_image(encode(Image.fromarray(pixels, "RGBA")))
    share = np.array([0, 128, 255])[:, None] / 255
    expected = share * [200, 0, 0] + (1 - share) * 255
    np.testing.assert_allclose(decoded[0], expected, atol=1)


def test_a_palette_is_looked_up(encode):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 250, 120, 10])
    image.putpixel((1, 0), 1)
    assert decode_image(encode(image)).tolist() == [[[0, 0, 0], [250, 120, 10]]]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True})]
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("any_jpeg_decoder")
def test_exif_turns_the_picture(picture, encode, kind, options, orientation, channels):
    image = picture(5, size=(16, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode_image(encode(image, kind, **options), channels=channels)
    tagged = encode(image, kind, exif=exif, **options)
    oriented = ORIENTATIONS[orientation](plain)
    np.testing.assert_array_equal(decode_image(tagged, channels=channels), oriented)
    header = read_header(tagged)
    assert (header.height, header.width, header.turned) == (16, 24, orientation > 1)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(picture, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, tagged = encode(picture(), "PNG"), encode(picture(), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(tagged), decode_image(plain))
    assert not read_header(tagged).turned


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_the_header_names_kind_and_mode(picture, encode, kind):
    header = read_header(encode(picture(size=(3, 5)), kind))
    assert (header.format, header.mode, header.height, header.width) == (kind, "RGB", 3, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(1, 1, depth=16, colour=4, rows=[b"\0\1" * 2]), "LA of 16 bits a channel"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not read yet"),
        (b"\xff\x4f\xff\x51\0\0", "JPEG 2000 is not read yet"),
        (b"\0\0\0 ftypheic" + bytes(20), "HEIC is not read yet"),
        (b"\0\0\0 ftypmif1" + bytes(20), "HEIC is not read yet"),
        (b"8BPS\0\1", "Photoshop is not read yet"),
        (b"qoif" + bytes(10), "QOI is not read yet"),
        (b"v/1\x01", "OpenEXR is not read yet"),
    ],
)
def test_a_kind_that_is_not_read_is_refused_by_name(content, message):
    with pytest.raises(UnsupportedImageError, match=message):
        decode_image(content)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_the_first_frame_of_several_is_taken(picture, encode, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    options = {"quality": 100} if kind == "AVIF" else options
    first, second = picture(0, size=(16, 16)), picture(1, size=(16, 16))
    several = encode(first, kind, save_all=True, append_images=[second], **options)
    alone = encode(first, kind, **options)
    assert read_header(several).num_frames == 2
    assert read_header(alone).num_frames == 1
    difference = decode_image(several).astype(int) - decode_image(alone)
    assert np.abs(difference).max() <= (12 if kind == "AVIF" else 0)


SIXTEEN = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), dtype=np.uint16)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_sixteen_bits_of_a_png_are_kept(colour, channels):
    values = SIXTEEN[:, :, :channels]
    rows = [row.astype(">u2").tobytes() for row in values]
    content = png(7, 5, depth=16, colour=colour, rows=rows)
    pixels = decode_image(content, channels=channels)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, values)
    header = read_header(content)
    assert (header.height, header.width) == (5, 7)
    assert header.mode in ("I;16", "RGB;16", "RGBA;16")


def test_alpha_of_sixteen_bits_is_put_on_white():
    rows = [row.astype(">u2").tobytes() for row in SIXTEEN]
    pixels = decode_image(png(7, 5, depth=16, colour=6, rows=rows))
    share = SIXTEEN[:, :, 3:] / 65535
    expected = share * SIXTEEN[:, :, :3] + (1 - share) * 65535
    np.testing.assert_allclose(pixels, expected, atol=1)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize(
    "values",
    [
        SIXTEEN[:, :, 0],
        np.random.default_rng(1).integers(-1024, 99_999, (4, 6), dtype=np.int32),
        np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32),
    ],
    ids=lambda values: str(values.dtype),
)
def test_values_of_a_tiff_are_kept(encode, values, compression):
    content = encode(Image.fromarray(values), "TIFF", compression=compression)
    pixels = decode_image(content, channels=1)
    assert pixels.dtype == values.dtype
    np.testing.assert_array_equal(pixels[:, :, 0], values)
    np.testing.assert_array_equal(decode_image(content), pixels.repeat(3, axis=2))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_colour_tiff_of_sixteen_bits_is_kept_in_either_byte_order(order):
    values = SIXTEEN[:, :, :3]
    content = tiff_of_colours(values, order=order)
    np.testing.assert_array_equal(decode_image(content), values)


def tiff_of_colours(values, *, order):
    """An uncompressed TIFF of 16 bits a channel made by hand."""
    height, width, channels = values.shape
    body = values.astype(f"{order}u2").tobytes()
    bits_at = 8 + len(body)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits_at), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, 1, len(body)), (284, 3, 1, 1),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        packed = "HH" if kind == 3 and count == 1 else "I"
        values_of_tag = (value, 0) if packed == "HH" else (value,)
        directory += struct.pack(f"{order}HHI{packed}", tag, kind, count, *values_of_tag)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", bits_at + 6)
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    return start + body + bits + directory + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (6, 5, 13)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float64])
def test_an_array_file_is_an_image_of_any_number_of_channels(shape, dtype):
    values = (np.arange(np.prod(shape)).reshape(shape) % 200).astype(dtype)
    pixels = decode_image(npy(values), channels=values.size // (shape[0] * shape[1]))
    np.testing.assert_array_equal(pixels.reshape(shape), values)
    assert pixels.dtype in (np.uint8, np.uint16, np.int32, np.float32)
    header = read_header(npy(values))
    assert (header.format, header.height, header.width) == ("NumPy", *shape[:2])


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (npy(np.zeros((3, 8, 8), np.uint8)), UnsupportedImageError, "looks like .C, H, W."),
        (npy(np.zeros(5, np.uint8)), UnsupportedImageError, "wanted .H, W. or .H, W, C."),
        (npy(np.zeros((0, 4), np.uint8)), UnsupportedImageError, "wanted .H, W. or .H, W, C."),
        (npy(np.full((2, 2), np.nan)), UnsupportedImageError, "no finite numbers"),
        (npy(np.zeros((2, 2), complex)), UnsupportedImageError, "type complex128"),
        (npy(np.full((2, 2), 2**40)), UnsupportedImageError, "beyond 32 bits"),
        (npy(np.zeros((6, 4, 5), np.uint8)), UnsupportedImageError, "5 channels for a model of 3"),
        (npy(np.zeros((9, 9), np.uint8))[:-5], UnreadableImageError, "a damaged array"),
        (npy(np.array([{}])), UnreadableImageError, "a damaged array"),
    ],
)
def test_an_array_file_that_is_no_image_is_told(content, error, message):
    with pytest.raises(error, match=message):
        decode_image(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"a shopping list", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (bytes(1000), "not an image"),
        (b"BM rather short", "a damaged BMP header"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "could not create decoder"),
    ],
)
def test_what_is_no_image_is_unreadable(content, message):
    with pytest.raises(UnreadableImageError, match=message):
        decode_image(content)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {})],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.usefixtures("any_jpeg_decoder")
def test_a_truncated_image_is_unreadable(picture, encode, kind, options, share):
    content = encode(picture(size=(64, 64)), kind, **options)
    with pytest.raises(UnreadableImageError):
        decode_image(content[: int(len(content) * share)])


@pytest.mark.parametrize("channels", [0, 5, 13])
def test_files_have_no_further_channels(picture, encode, channels):
    with pytest.raises(
        UnsupportedImageError, match=f"1 to 4 channels, not {channels}.*npy or .npz"
    ):
        decode_image(encode(picture()), channels=channels)


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(
    picture, encode, monkeypatch
):
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    assert decode_image(encode(picture(size=(10, 10)))).shape == (10, 10, 3)
    with pytest.raises(UnreadableImageError, match="11 x 10 pixels are more than 100"):
        decode_image(encode(picture(size=(10, 11))))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("PNG", "P"),
        ("PNG", "I;16"),
        ("WEBP", "RGB"),
        ("BMP", "P"),
        ("GIF", "P"),
        ("TIFF", "RGB"),
        ("TIFF", "F"),
    ],
)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_damage_gives_pixels_or_one_of_two_errors(picture, encode, kind, mode, channels, data):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if kind in ("BMP", "GIF") else {"exif": exif}
    content = bytearray(encode(picture(size=(24, 32), mode=mode), kind, **options))
    positions = st.integers(0, len(content) - 1)
    for position, value in data.draw(
        st.dictionaries(positions, st.integers(0, 255), max_size=4)
    ).items():
        content[position] = value
    content = bytes(content[: data.draw(positions) + 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "MAX_PIXELS", 1_000_000)  # damage may announce any size
        try:
            pixels = decode_image(content, channels=channels)
        except (UnreadableImageError, UnsupportedImageError) as error:
            assert str(error)
        else:
            assert pixels.dtype in (np.uint8, np.uint16, np.int32, np.float32)
            assert pixels.shape[2] == channels
