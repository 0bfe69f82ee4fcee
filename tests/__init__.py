"""The facts that hold; start with test_friday."""
