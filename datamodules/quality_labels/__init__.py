"""Quality labels: full-reference scores of regions, the pseudo-labels of synthetic data."""
