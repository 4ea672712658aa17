"""The chat room as OpenAI's clients see it: other shapes around the same service, gate and guard."""
