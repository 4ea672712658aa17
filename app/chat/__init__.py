"""Chat: conversations with pictures, answered by whoever the router says."""
