"""GalaxiesML, from the HSC archive to HEALPix partitions."""
