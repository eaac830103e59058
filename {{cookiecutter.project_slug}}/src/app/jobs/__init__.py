"""Work that is done after the answer, or at certain times, by processes of its own."""
