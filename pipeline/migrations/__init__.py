"""The history of the tables, oldest first; a revision that has landed is never changed."""

HEAD = "0006"
