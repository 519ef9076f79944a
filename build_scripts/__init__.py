"""One folder a survey: from the archive to HEALPix partitions."""
