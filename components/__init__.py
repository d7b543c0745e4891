"""The model, in pure PyTorch: plugins by kind, the containers that travel between them, and how they are composed."""
