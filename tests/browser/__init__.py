"""What is seen in a real browser; run by `make test-browser`, since it needs Chromium."""
