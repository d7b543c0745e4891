"""The restoring network's shapes; counts and costs are tested with its scorer."""

import pytest
import torch

from components.restorer import Decoder, Join

CHANNELS = (8, 16, 24, 32, 64)


def levels(side):
    return tuple(torch.randn(1, c, side // s, side // s) for c, s in zip(CHANNELS, (2, 4, 8, 16, 32), strict=True))


def test_each_joined_level_has_the_shape_of_the_encoders():
    decoder, seen = Decoder(CHANNELS).eval(), levels(64)
    restored = decoder(seen)
    assert restored.bottom.shape == seen[4].shape
    assert [x.shape for x in restored.joined] == [seen[i].shape for i in (3, 2, 1)]
    picture = decoder.picture(restored.joined[-1], seen)
    assert picture.shape == (1, 3, 64, 64)
    assert not torch.equal(decoder.picture(restored.joined[-1], (seen[0] + 1, *seen[1:])), picture)
    assert 0 <= float(picture.detach().min()) <= float(picture.detach().max()) <= 1


def test_without_a_level_at_stride_2_the_picture_is_drawn_from_the_others():
    """What rates quality is the same network: of the decoder alone the end that draws has other weights."""
    whole, patched = Decoder((24, 96, *CHANNELS[2:])), Decoder((96, *CHANNELS[2:]))
    shapes, others = ({k: v.shape for k, v in d.state_dict().items() if "picture" not in k} for d in (whole, patched))
    assert others == shapes
    assert patched.picture.out.in_channels == 24  # a quarter of the first level's
    patched.eval()
    seen = (torch.randn(1, 96, 16, 16), *levels(64)[2:])
    restored = patched(seen)
    assert patched.picture(restored.joined[-1], seen).shape == (1, 3, 64, 64)


def test_an_odd_level_is_met_by_padding():
    join = Join(16, 8).eval()
    assert join(torch.randn(1, 16, 2, 3), torch.randn(1, 8, 5, 7)).shape == (1, 8, 5, 7)


@pytest.mark.parametrize("channels", [CHANNELS[2:], (*CHANNELS, 64), (4, *CHANNELS[1:])])
def test_other_levels_are_refused(channels):
    with pytest.raises(ValueError, match=r"levels at strides \(2, .* or \(4, .* each of a multiple of 8 channels; got channels"):
        Decoder(channels)
