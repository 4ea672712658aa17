"""Background work: the stages that turn a removal request into a live expert."""
