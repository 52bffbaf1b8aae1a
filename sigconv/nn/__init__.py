"""Layers as functions, with torch.nn.functional's conventions: everything here is correlation, nothing flips."""
