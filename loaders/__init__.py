"""One file per survey: what it is, where it comes from, its columns, its `datasets` builder."""
