"""Galaxy Zoo DECaLS: from Zenodo, or files at hand, to partitions."""
