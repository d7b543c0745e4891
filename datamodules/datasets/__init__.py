"""Data sets: where the images, their regions and their labels come from."""
