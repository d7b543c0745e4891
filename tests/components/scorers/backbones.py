"""Nets of several families, to be put in the place of the published ones: small ones that learn, and large ones by their name."""

VIT = {"embed_dim": 32, "depth": 5, "num_heads": 2}
SMALL = {  # options of the vision encoder, and the strides of its levels
    "convnext": ({"name": "convnext_atto", "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 64]}}, (4, 8, 16, 32)),
    "swin": (
        {
            "name": "swin_tiny_patch4_window7_224",
            "model_args": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
        },
        (4, 8, 16, 32),
    ),
    "resnet": ({"name": "resnet10t", "model_args": {"channels": [8, 16, 24, 64]}}, (2, 4, 8, 16, 32)),
    "mobilenet": ({"name": "mobilenetv3_small_050"}, (2, 4, 8, 16, 32)),
    "vit": ({"name": "vit_small_patch16_224", "model_args": VIT}, (16,) * 5),
    "dinov2": ({"name": "vit_small_patch14_dinov2", "image_size": 56, "model_args": VIT}, (14,) * 5),
}
LARGE = {
    "convnext_tiny": (4, 8, 16, 32),
    "swin_tiny_patch4_window7_224": (4, 8, 16, 32),
    "resnet50": (2, 4, 8, 16, 32),
    "vit_small_patch16_224": (16,) * 5,
}


def node(family):
    """The vision encoder's, as the presets of the published networks ask for levels."""
    return {"plugin": "timm_pyramid", "image_size": 64, "most_levels": 5, **SMALL[family][0]}
