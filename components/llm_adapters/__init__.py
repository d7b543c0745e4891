"""LLM adapters: any causal language model behind one interface."""
