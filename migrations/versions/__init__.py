"""One file a revision, named by the minute it was written, so that a listing is the history."""
