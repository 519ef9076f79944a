"""Galaxy Zoo 2: from tables of votes, with or without images, to partitions."""
