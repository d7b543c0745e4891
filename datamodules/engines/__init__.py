"""Engines: where the shards of a long job are worked on."""
