"""Examples and batches: where images are, what they hold, in which order and form they come.

What happens to an image, from its file to the model, in this order:

| step | where | function | its randomness |
|---|---|---|---|
| decode: rotated as EXIF says, maybe smaller | threads | `decode.decode_image` | none |
| match: 0..255, the model's channels | threads | `transforms.match_model` | none |
| geometry: crop, resize, shift | threads | `geometry.apply_to_image` | the first `NUM_UNIFORMS` |
| RandAugment | threads | `randaugment.randaugment` | those behind, 4 for each change |
| flip | device | `device_transforms.flip_left_right` | the last of the first `NUM_UNIFORMS` |
| normalise: the model's range | device | `transforms.normalise` | none |
| mix: mixup, CutMix | device | `device_transforms.mix` | seed, epoch, pair |

Threads fill batches in main memory, of bytes or, without rounding, of floats; on the device a whole
batch is changed at once. The random numbers of an image are `order.uniforms` of (seed, epoch,
index), `geometry.NUM_UNIFORMS` of them for its geometry; those of a pair `order.mixup_shares` and
`order.cutmix_boxes`. The geometry, flip included, is drawn once by `geometry.draw_geometry` on the
image's true size: before decoding where a JPEG is decoded smaller, else after it. In evaluation and
prediction it is `geometry.central_geometry`, and nothing is random: there is no RandAugment, flip
or mix.
"""
