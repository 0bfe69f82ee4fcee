"""The Friday machine: from sources to a sent issue."""
