"""What browsers see: the preview on loopback, and the public pages."""
