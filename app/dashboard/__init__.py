"""Server-rendered pages. Nothing is loaded from elsewhere, and nothing runs in the browser."""
