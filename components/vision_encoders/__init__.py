"""Vision encoders: images -> a pyramid of feature maps."""
