"""What is HTTP-wide: problem documents, who asks, limits, pages, event streams."""
