"""Mask encoders: prompts (points, boxes, polygons, RLE, masks) or nothing at all -> region masks."""
