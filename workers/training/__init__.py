"""Training of one expert: a LoRA adapter refusing the subject, otherwise like the base model."""
