"""LUMoE at inference time: a pure library, torch in, decisions and text out; no HTTP, no SQL."""
