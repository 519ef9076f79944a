"""SDSS Galaxy Zoo, from TAP and hips2fits services to HEALPix partitions."""
