"""The web page: what a visitor does, without a browser, and how it is laid out. Only `layout` and `server` need Gradio."""
