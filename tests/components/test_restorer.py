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
    picture = decoder.picture(restored.joined[-1], seen[0])
    assert picture.shape == (1, 3, 64, 64)
    assert 0 <= float(picture.detach().min()) <= float(picture.detach().max()) <= 1


def test_an_odd_level_is_met_by_padding():
    join = Join(16, 8).eval()
    assert join(torch.randn(1, 16, 2, 3), torch.randn(1, 8, 5, 7)).shape == (1, 8, 5, 7)


@pytest.mark.parametrize("channels", [CHANNELS[1:], (4, *CHANNELS[1:])])
def test_other_levels_are_refused(channels):
    with pytest.raises(ValueError, match=r"five levels .* each of a multiple of 8 channels; got"):
        Decoder(channels)
