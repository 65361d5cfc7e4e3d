"""LoRA adapters of a language model in bfloat16, with compressed traffic."""
