"""The forget set and the retain set of one removal request."""
