"""The rendered issue before an HTML checker and a browser."""
