"""Galaxy Zoo: 3D, from the archive to HEALPix partitions."""
