"""One file a survey: what it is, where it comes from, its columns, its `datasets` builder."""
