"""The Lethe service: HTTP rooms, the registry, the audit trail and the LUMoE method at inference time."""
