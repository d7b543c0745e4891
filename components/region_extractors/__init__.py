"""Region extractors: an image's pyramid and a region -> the tokens that a language model reads."""
