"""Data: records of images with their regions, where they come from, how they are made and how they become batches."""
